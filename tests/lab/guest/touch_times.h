/* How long touches of memory take, and which of them waited; as a status file that others read.
 *
 * For the first second touches are only sorted by time: their 99.9th percentile is what a touch may
 * take. From then on every slower touch is a wait. Not responsible for what is touched, or when.
 * One thread; a failure ends the program, with a sentence.
 */
#ifndef POSTCOPY_LAB_TOUCH_TIMES_H_
#define POSTCOPY_LAB_TOUCH_TIMES_H_

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { kBuckets = 64 * 16 };

/* A histogram with 16 buckets an octave of nanoseconds. */
struct histogram {
  uint64_t count, sum_ns, buckets[kBuckets];
};

static inline size_t bucket_of(uint64_t ns) {
  if (ns < 16) return ns;
  const int octave = 63 - __builtin_clzll(ns);
  return (size_t)(octave - 3) * 16 + ((ns >> (octave - 4)) & 15);
}

static inline double value_of(size_t bucket) {
  if (bucket < 16) return (double)bucket;
  const int octave = (int)(bucket / 16) + 3;
  return ldexp(16.0 + (double)(bucket % 16) + 0.5, octave - 4);
}

static inline void histogram_add(struct histogram* histogram, uint64_t ns) {
  histogram->count++;
  histogram->sum_ns += ns;
  histogram->buckets[bucket_of(ns)]++;
}

static inline double quantile_us(const struct histogram* histogram, double share) {
  uint64_t left = (uint64_t)(share * (double)histogram->count);
  for (size_t i = 0; i < kBuckets; ++i) {
    if (histogram->buckets[i] > left) return value_of(i) / 1000;
    left -= histogram->buckets[i];
  }
  return 0;
}

static inline uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* All zero but begun_ns before the first touch. */
struct touch_times {
  uint64_t begun_ns, touches;
  double limit_us; /* 0: not known yet */
  struct histogram all, waits;
};

/* Takes note of a touch. 1 if it was a wait. */
static inline int touch_times_add(struct touch_times* times, uint64_t before_ns,
                                  uint64_t after_ns) {
  times->touches++;
  if (times->limit_us == 0) {
    histogram_add(&times->all, after_ns - before_ns);
    if (after_ns - times->begun_ns > 1000000000u) times->limit_us = quantile_us(&times->all, 0.999);
    return 0;
  }
  if ((double)(after_ns - before_ns) / 1000 <= times->limit_us) return 0;
  histogram_add(&times->waits, after_ns - before_ns);
  return 1;
}

/* Replaces the file at `path` (temporary name, then rename) by one JSON object: touches so far,
 * limit_us, waited_us (sum of all waits so far) and waits, a list of pairs: a time in us (to 6 %),
 * and how many waits took that long so far; then the members that `more` is the text of, "" or
 * beginning with ", ". Two readings subtracted tell what happened between them. */
static inline void touch_times_publish(const struct touch_times* times, const char* path,
                                       const char* more) {
  char temporary[256];
  snprintf(temporary, sizeof temporary, "%s.new", path);
  FILE* file = fopen(temporary, "w");
  if (!file) {
    fprintf(stderr, "open %s: %s\n", temporary, strerror(errno));
    exit(1);
  }
  fprintf(file, "{\"touches\": %llu, \"limit_us\": %.3f, \"waited_us\": %.0f, \"waits\": [",
          (unsigned long long)times->touches, times->limit_us, (double)times->waits.sum_ns / 1000);
  const char* separator = "";
  for (size_t i = 0; i < kBuckets; ++i) {
    if (times->waits.buckets[i] == 0) continue;
    fprintf(file, "%s[%.2f, %llu]", separator, value_of(i) / 1000,
            (unsigned long long)times->waits.buckets[i]);
    separator = ", ";
  }
  fprintf(file, "]%s}\n", more);
  if (fclose(file) != 0 || rename(temporary, path) != 0) {
    fprintf(stderr, "replace %s: %s\n", path, strerror(errno));
    exit(1);
  }
}

#endif /* POSTCOPY_LAB_TOUCH_TIMES_H_ */
