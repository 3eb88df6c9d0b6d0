/* The memory that moves at process level, as both ends know it: its content, and its name as a
 * session of a page server. Shared by C and C++. */
#ifndef POSTCOPY_PERF_PROCESS_MEMORY_H_
#define POSTCOPY_PERF_PROCESS_MEMORY_H_

#include "tests/lab/guest/content.h"

static const char kProcessRegion[] = "memory";
static const unsigned char kProcessSession[16] = {'p', 'r', 'o', 'c', 'e', 's', 's'};

enum {
  kPagesPerMib = (1 << 20) / LAB_PAGE_BYTES,
  /* Words of a page whose content is what process_fill_page() says, for ever; the one after them
   * counts the writes to the page. */
  kConstantWords = LAB_PAGE_WORDS - 1
};

static inline uint64_t process_word(uint64_t page, uint64_t word) {
  return lab_page_word(1, page, 0) + word * kLabGolden;
}

/* The content at the beginning: no two pages alike, none that compresses. */
static inline void process_fill_page(uint64_t page, uint64_t* words) {
  for (uint64_t i = 0; i < kConstantWords; ++i) words[i] = process_word(page, i);
  words[kConstantWords] = 0;
}

#endif /* POSTCOPY_PERF_PROCESS_MEMORY_H_ */
