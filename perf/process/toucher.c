/* process-toucher MIB STATUS_FILE moved FILE | fetch HOST:PORT: touches memory while it moves to
 * another place, and times each touch, until SIGTERM.
 *
 * Touches a random page at a time; 30 of 100 touches write. Sleeps 1 ms after each 1,024. The
 * memory moves in one of two ways: moved  somebody else freezes this process, moves it, and makes
 * FILE in the meantime; fetch  on SIGUSR1 this process gives its memory up and has it brought from
 * the page server at HOST:PORT (page_server.cc) by libpostcopy. The first touch after that is the
 * switch. STATUS_FILE is replaced every 100 ms by what touch_times.h says, where waits are those
 * since the switch, and switched_s       when the switch was, seconds since the epoch gap_ms time
 * without a touch up to the switch after_switch_ms  fetch: from the switch until the last page was
 * there total_ms         fetch: from the call that starts it until then wrong_words, lost_writes
 * after SIGTERM only: what differs from the content that must be there each as soon as it is known.
 * Exit status: 0 if nothing differs. */
#include <math.h>
#include <postcopy/postcopy.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "perf/process/memory.h"
#include "tests/lab/guest/touch_times.h"

enum { kWritesOf100 = 30, kPauseUs = 1000, kPublishNs = 100000000 };
/* A freeze is longer; so FILE is looked for after few touches only. */
static const uint64_t kShortestFreezeNs = 10000000;

static volatile sig_atomic_t stop_wanted, fetch_wanted;
static void want_stop(int signal) { (void)signal, stop_wanted = 1; }
static void want_fetch(int signal) { (void)signal, fetch_wanted = 1; }

struct memory {
  uint64_t* words;
  uint64_t pages;
  uint64_t writes; /* since it had its content of the beginning */
};

/* The switch; zero until it was. */
struct move {
  uint64_t called_ns, switched_ns, gap_ns;
  double switched_s;
  postcopy_engine* engine;
  _Atomic uint64_t complete_ns; /* set by the thread that waits */
};

static void die(const char* what, const char* cause) {
  fprintf(stderr, "process-toucher: %s: %s\n", what, cause);
  exit(1);
}

static struct memory make_memory(uint64_t pages) {
  uint64_t* words = mmap(NULL, pages * LAB_PAGE_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (words == MAP_FAILED) die("allocate memory", strerror(errno));
  /* The same pages before and after the move, so that what a touch may take is the same. */
  madvise(words, pages * LAB_PAGE_BYTES, MADV_NOHUGEPAGE);
  for (uint64_t page = 0; page < pages; ++page) {
    process_fill_page(page, words + page * LAB_PAGE_WORDS);
  }
  return (struct memory){words, pages, 0};
}

static void* wait_for_pages(void* argument) {
  struct move* move = argument;
  int result;
  do {
    result = postcopy_engine_wait(move->engine, 1000);
  } while (result == -ETIMEDOUT);
  if (result != 0) die("bring the memory", postcopy_engine_error(move->engine));
  move->complete_ns = now_ns();
  return NULL;
}

/* Gives the memory up and starts to fetch it. */
static void fetch(struct move* move, struct memory* memory, const char* address) {
  const struct postcopy_region region = {kProcessRegion, memory->words,
                                         memory->pages * LAB_PAGE_BYTES, -1, 0};
  struct postcopy_engine_options options = {.size = sizeof options,
                                            .addresses = &address,
                                            .address_count = 1,
                                            .regions = &region,
                                            .region_count = 1,
                                            .userfault = -1};
  memcpy(options.session, kProcessSession, sizeof options.session);
  move->called_ns = now_ns();
  const int result = postcopy_engine_start(&options, &move->engine);
  if (result != 0) die("start to fetch", strerror(-result));
  memory->writes = 0;
  pthread_t thread;
  if (pthread_create(&thread, NULL, wait_for_pages, move) != 0) die("start a thread", "none left");
  pthread_detach(thread);
}

/* From now on what waits waits for pages. */
static void note_switch(struct move* move, struct touch_times* times, uint64_t now,
                        uint64_t gap_ns) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  move->switched_s = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
  move->switched_ns = now;
  move->gap_ns = gap_ns;
  memset(&times->waits, 0, sizeof times->waits);
}

/* Touches a page of `memory`; its time goes into `times`. Returns when it was done. */
static uint64_t touch(struct memory* memory, struct touch_times* times) {
  const uint64_t number = times->touches;
  const uint64_t page = lab_mix64(number * kLabGolden + 1) % memory->pages;
  volatile uint64_t* const words = memory->words + page * LAB_PAGE_WORDS;
  const uint64_t word = lab_mix64(number) % kConstantWords;
  const int write = lab_mix64(number ^ 1) % 100 < kWritesOf100;
  const uint64_t before = now_ns();
  if (write) {
    words[kConstantWords]++;
  } else {
    (void)words[word];
  }
  const uint64_t after = now_ns();
  memory->writes += (uint64_t)write;
  touch_times_add(times, before, after);
  return after;
}

static void publish(const char* path, const struct touch_times* times, const struct move* move,
                    const char* verdict) {
  char more[512] = "";
  size_t length = 0;
  if (move->switched_ns) {
    length += (size_t)snprintf(more, sizeof more, ", \"switched_s\": %.6f, \"gap_ms\": %.3f",
                               move->switched_s, (double)move->gap_ns / 1e6);
  }
  const uint64_t complete_ns = move->complete_ns;
  if (complete_ns) {
    length += (size_t)snprintf(more + length, sizeof more - length,
                               ", \"after_switch_ms\": %.3f, \"total_ms\": %.3f",
                               ((double)complete_ns - (double)move->switched_ns) / 1e6,
                               (double)(complete_ns - move->called_ns) / 1e6);
  }
  snprintf(more + length, sizeof more - length, "%s", verdict);
  touch_times_publish(times, path, more);
}

/* Compares every word. 1 and the members for the status in `verdict`: something differs. */
static int verify(const struct memory* memory, char* verdict, size_t size) {
  uint64_t wrong_words = 0, counted = 0;
  for (uint64_t page = 0; page < memory->pages; ++page) {
    const uint64_t* const words = memory->words + page * LAB_PAGE_WORDS;
    for (uint64_t i = 0; i < kConstantWords; ++i) wrong_words += words[i] != process_word(page, i);
    counted += words[kConstantWords];
  }
  const int64_t lost_writes = (int64_t)(memory->writes - counted);
  snprintf(verdict, size, ", \"wrong_words\": %llu, \"lost_writes\": %lld",
           (unsigned long long)wrong_words, (long long)lost_writes);
  return wrong_words != 0 || lost_writes != 0;
}

int main(int argc, char** argv) {
  const int fetches = argc == 5 && strcmp(argv[3], "fetch") == 0;
  if (argc != 5 || (!fetches && strcmp(argv[3], "moved") != 0)) {
    fprintf(stderr, "usage: process-toucher MIB STATUS_FILE moved FILE | fetch HOST:PORT\n");
    return 2;
  }
  const char* const status = argv[2];
  struct memory memory = make_memory(strtoull(argv[1], NULL, 0) * kPagesPerMib);
  signal(SIGTERM, want_stop);
  signal(SIGUSR1, want_fetch);
  static struct touch_times times;
  static struct move move;
  times.begun_ns = now_ns();
  uint64_t published = times.begun_ns, last = times.begun_ns;
  while (!stop_wanted) {
    if (fetches && fetch_wanted && !move.engine) {
      fetch(&move, &memory, argv[4]);
      /* A missing page may be the first one touched: the switch is before it. */
      const uint64_t now = now_ns();
      note_switch(&move, &times, now, now - last);
    }
    const uint64_t now = touch(&memory, &times);
    if (!fetches && !move.switched_ns && now - last > kShortestFreezeNs &&
        access(argv[4], F_OK) == 0) {
      note_switch(&move, &times, now, now - last);
    }
    last = now;
    if (times.touches % 1024 == 0) usleep(kPauseUs);
    if (now - published > kPublishNs) {
      publish(status, &times, &move, "");
      published = now;
    }
  }
  char verdict[128];
  const int differs = verify(&memory, verdict, sizeof verdict);
  publish(status, &times, &move, verdict);
  return differs;
}
