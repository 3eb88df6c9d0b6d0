/* The content of the guest's files and of its checked memory, as functions of a seed.
 *
 * Shared by the guest's programs (C, run under emulation, so no vector code and few operations a
 * word) and by the load client (C++), which computes what each file must contain. Words are stored
 * in the machine's byte order: guest and client are both little-endian x86. Does no input or
 * output.
 */
#ifndef POSTCOPY_LAB_CONTENT_H_
#define POSTCOPY_LAB_CONTENT_H_

#include <stddef.h>
#include <stdint.h>

enum {
  LAB_FILE_BYTES = 65536,
  LAB_FILE_WORDS = LAB_FILE_BYTES / 8,
  LAB_PAGE_BYTES = 4096,
  LAB_PAGE_WORDS = LAB_PAGE_BYTES / 8
};

/* Steele, Lea, Flood: the finalizer of SplitMix64. A bijection of 64-bit words. */
static inline uint64_t lab_mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

static const uint64_t kLabGolden = UINT64_C(0x9e3779b97f4a7c15);

/* Writes the LAB_FILE_WORDS words of file number `file` (from 0): a SplitMix64 stream. */
static inline void lab_fill_file(uint64_t seed, uint64_t file, uint64_t* words) {
  uint64_t state = lab_mix64(lab_mix64(seed + kLabGolden) + file);
  for (size_t i = 0; i < LAB_FILE_WORDS; ++i) {
    state += kLabGolden;
    words[i] = lab_mix64(state);
  }
}

/* The first word of a checked page; word i is this plus i * kLabGolden. So a page of another
 * address, of an earlier generation or of zeros differs in every word, and any wrong byte makes its
 * word differ. */
static inline uint64_t lab_page_word(uint64_t seed, uint64_t page, uint64_t generation) {
  return lab_mix64(lab_mix64(seed + kLabGolden * (generation + 1)) + page);
}

#endif /* POSTCOPY_LAB_CONTENT_H_ */
