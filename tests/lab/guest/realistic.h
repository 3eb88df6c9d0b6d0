/* Files whose pages are such as a server's memory has: of 100, by seed, 40 are zero, 25 are machine
 * code, 15 text, 15 random, 5 a repetition of one of a few pages.
 *
 * Beside content.h, for guest and load client alike. The machine code is a program's, which both have
 * as bytes: each such page begins at another 16 bytes of it, so that few are equal as a whole. Does no
 * input or output. */
#ifndef POSTCOPY_LAB_REALISTIC_H_
#define POSTCOPY_LAB_REALISTIC_H_

#include <string.h>

#include "content.h"

enum { LAB_REPEATED_PAGES = 16, LAB_WORD_COUNT = 64, LAB_WORD_LETTERS = 10 };

/* Two thirds of a page's words are among the first eight, as in a language. */
static inline void lab_fill_text_page(uint64_t state, char* bytes) {
  size_t filled = 0;
  while (filled < LAB_PAGE_BYTES) {
    state += kLabGolden;
    const uint64_t random = lab_mix64(state);
    const uint64_t word = lab_mix64(random % 3 ? random >> 32 & 7 : random >> 32 & (LAB_WORD_COUNT - 1));
    const size_t letters = 2 + word % (LAB_WORD_LETTERS - 1);
    for (size_t i = 0; i < letters && filled < LAB_PAGE_BYTES; ++i) {
      bytes[filled++] = (char)('a' + (word >> (5 * i + 4)) % 26);
    }
    if (filled < LAB_PAGE_BYTES) bytes[filled++] = random % 61 == 0 ? '\n' : ' ';
  }
}

static inline void lab_fill_random_page(uint64_t state, uint64_t* words) {
  for (size_t i = 0; i < LAB_PAGE_WORDS; ++i) words[i] = lab_mix64(state += kLabGolden);
}

/* Page `page`, counted through all files. `program` has at least a page. */
static inline void lab_fill_realistic_page(uint64_t seed, uint64_t page, const char* program,
                                           size_t program_bytes, uint64_t* words) {
  const uint64_t state = lab_mix64(lab_mix64(seed + kLabGolden) + page);
  const unsigned kind = (unsigned)(state % 100);
  if (kind < 40) {
    memset(words, 0, LAB_PAGE_BYTES);
  } else if (kind < 65) {
    const size_t places = (program_bytes - LAB_PAGE_BYTES) / 16 + 1;
    memcpy(words, program + (state >> 8) % places * 16, LAB_PAGE_BYTES);
  } else if (kind < 80) {
    lab_fill_text_page(state, (char*)words);
  } else if (kind < 95) {
    lab_fill_random_page(state, words);
  } else {
    lab_fill_random_page(lab_mix64(seed) + (state >> 8) % LAB_REPEATED_PAGES, words);
  }
}

/* The LAB_FILE_WORDS words of file number `file`. */
static inline void lab_fill_realistic_file(uint64_t seed, uint64_t file, const char* program,
                                           size_t program_bytes, uint64_t* words) {
  const uint64_t pages = LAB_FILE_BYTES / LAB_PAGE_BYTES;
  for (uint64_t page = 0; page < pages; ++page) {
    lab_fill_realistic_page(seed, file * pages + page, program, program_bytes,
                            words + page * LAB_PAGE_WORDS);
  }
}

#endif /* POSTCOPY_LAB_REALISTIC_H_ */
