/* memtouch MIB SEED ORDER WRITES PAUSE_US STATUS_FILE: touches memory and times each touch, for ever.
 *
 * Fills MIB MiB, then touches one word of a page after the other: ORDER linear, random, or zipf (page
 * ranks scattered over the memory, popularity 1/rank); WRITES in 100 of the touches write. Sleeps
 * PAUSE_US after each 1,024 touches so that the guest's server gets the processor.
 *
 * For the first second touches are only sorted by time: their 99.9th percentile is what a touch may
 * take. From then on every slower touch is a wait. STATUS_FILE is replaced every 100 ms (temporary
 * name, then rename) by one JSON object: touches so far, limit_us (0: not known yet), waited_us (sum of
 * all waits so far) and waits, a list of pairs: a time in us (to 6 %), and how many waits took that long so
 * far. Two readings subtracted tell what happened between them. Never ends by itself. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "content.h"

enum { kPagesPerMib = (1 << 20) / LAB_PAGE_BYTES, kBuckets = 64 * 16 };

/* A histogram with 16 buckets an octave of nanoseconds. */
struct histogram {
  uint64_t count, sum_ns, buckets[kBuckets];
};

static size_t bucket_of(uint64_t ns) {
  if (ns < 16) return ns;
  const int octave = 63 - __builtin_clzll(ns);
  return (size_t)(octave - 3) * 16 + ((ns >> (octave - 4)) & 15);
}

static double value_of(size_t bucket) {
  if (bucket < 16) return (double)bucket;
  const int octave = (int)(bucket / 16) + 3;
  return ldexp(16.0 + (double)(bucket % 16) + 0.5, octave - 4);
}

static void add(struct histogram* histogram, uint64_t ns) {
  histogram->count++;
  histogram->sum_ns += ns;
  histogram->buckets[bucket_of(ns)]++;
}

static double quantile_us(const struct histogram* histogram, double share) {
  uint64_t left = (uint64_t)(share * (double)histogram->count);
  for (size_t i = 0; i < kBuckets; ++i) {
    if (histogram->buckets[i] > left) return value_of(i) / 1000;
    left -= histogram->buckets[i];
  }
  return 0;
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void publish(const char* path, uint64_t touches, double limit_us,
                    const struct histogram* waits) {
  char temporary[256];
  snprintf(temporary, sizeof temporary, "%s.new", path);
  FILE* file = fopen(temporary, "w");
  if (!file) {
    fprintf(stderr, "memtouch: open %s: %s\n", temporary, strerror(errno));
    exit(1);
  }
  fprintf(file, "{\"touches\": %llu, \"limit_us\": %.3f, \"waited_us\": %.0f, \"waits\": [",
          (unsigned long long)touches, limit_us, (double)waits->sum_ns / 1000);
  const char* separator = "";
  for (size_t i = 0; i < kBuckets; ++i) {
    if (waits->buckets[i] == 0) continue;
    fprintf(file, "%s[%.2f, %llu]", separator, value_of(i) / 1000,
            (unsigned long long)waits->buckets[i]);
    separator = ", ";
  }
  fprintf(file, "]}\n");
  if (fclose(file) != 0 || rename(temporary, path) != 0) {
    fprintf(stderr, "memtouch: replace %s: %s\n", path, strerror(errno));
    exit(1);
  }
}

/* The page of touch `number`. Zipf with exponent 1, by inversion of the continuous distribution. */
static uint64_t page_of(const char* order, uint64_t number, uint64_t pages) {
  const uint64_t random = lab_mix64(number * kLabGolden + 1);
  switch (order[0]) {
    case 'l': return number % pages;
    case 'z': {
      const double share = (double)(random >> 11) * 0x1p-53;
      const uint64_t rank = (uint64_t)(exp(share * log((double)pages)) - 1.0);
      return lab_mix64(rank) % pages;
    }
    default: return random % pages;
  }
}

int main(int argc, char** argv) {
  if (argc != 7) {
    fprintf(stderr, "usage: memtouch MIB SEED linear|random|zipf WRITES PAUSE_US STATUS_FILE\n");
    return 2;
  }
  const uint64_t pages = strtoull(argv[1], NULL, 0) * kPagesPerMib;
  const uint64_t seed = strtoull(argv[2], NULL, 0);
  const uint64_t writes = strtoull(argv[4], NULL, 0);
  const useconds_t pause_us = (useconds_t)strtoul(argv[5], NULL, 0);
  volatile uint64_t* memory = mmap(NULL, pages * LAB_PAGE_BYTES, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    fprintf(stderr, "memtouch: allocate %s MiB: %s\n", argv[1], strerror(errno));
    return 1;
  }
  for (uint64_t word = 0; word < pages * LAB_PAGE_WORDS; ++word) {
    memory[word] = lab_mix64(seed + word);
  }
  static struct histogram all, waits;
  const uint64_t begun = now_ns();
  double limit_us = 0;
  uint64_t published = 0, touches = 0;
  for (;; ++touches) {
    const uint64_t at = page_of(argv[3], touches, pages) * LAB_PAGE_WORDS +
                        lab_mix64(touches) % LAB_PAGE_WORDS;
    const int write = lab_mix64(touches ^ seed) % 100 < writes;
    const uint64_t before = now_ns();
    if (write) {
      memory[at] = touches;
    } else {
      (void)memory[at];
    }
    const uint64_t after = now_ns();
    if (limit_us == 0) {
      add(&all, after - before);
      if (after - begun > 1000000000u) limit_us = quantile_us(&all, 0.999);
    } else if ((double)(after - before) / 1000 > limit_us) {
      add(&waits, after - before);
    }
    if (touches % 1024 == 1023) {
      if (pause_us) usleep(pause_us);
      if (after - published > 100000000u) {
        publish(argv[6], touches + 1, limit_us, &waits);
        published = after;
      }
    }
  }
}
