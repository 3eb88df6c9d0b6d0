/* webapp SOCKET SEED: the guest's web program. Answers FastCGI requests on the Unix socket SOCKET,
 * one after the other, for ever.
 *
 * A request's query is MIX.TYPE.ACCOUNT.VISIT in numbers. The program keeps a page of memory for
 * each account: its state, written over the whole page. A request checks the account's page word by
 * word, begins the account anew if VISIT is 0, moves the state on, writes it back, and answers a
 * page that is a function of the new state (web_content.h). So a page of the guest's memory that
 * was lost, is wrong or is older than the last visit shows: as status 500 or as other content than
 * the client computes. An unknown MIX or TYPE is status 404. */
#include <errno.h>
#include <fcgiapp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "web_content.h"

enum { kBacklog = 512 };

static uint64_t* page_of(uint64_t* accounts, uint64_t account) {
  return accounts + account * LAB_PAGE_WORDS;
}

static void write_state(uint64_t* page, uint64_t state) {
  for (size_t i = 0; i < LAB_PAGE_WORDS; ++i) page[i] = state + i * kLabGolden;
}

static int state_is_whole(const uint64_t* page) {
  for (size_t i = 1; i < LAB_PAGE_WORDS; ++i) {
    if (page[i] != page[0] + i * kLabGolden) return 0;
  }
  return 1;
}

static void refuse(FCGX_Stream* out, const char* status, const char* cause) {
  FCGX_FPrintF(out, "Status: %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
               status, (int)strlen(cause), cause);
}

static void answer(FCGX_Request* request, uint64_t* accounts, uint64_t seed) {
  static uint64_t body[LAB_WEB_MAX_PAGE_BYTES / 8 + 1];
  const char* query = FCGX_GetParam("QUERY_STRING", request->envp);
  unsigned mix, type;
  unsigned long long account, visit;
  if (!query || sscanf(query, "%u.%u.%llu.%llu", &mix, &type, &account, &visit) != 4 ||
      account >= LAB_WEB_ACCOUNTS || lab_web_page_bytes(mix, type) == 0) {
    refuse(request->out, "404 Not Found", "no such page");
    return;
  }
  uint64_t* page = page_of(accounts, account);
  if (!state_is_whole(page)) {
    refuse(request->out, "500 Internal Server Error", "the account's state is not whole");
    return;
  }
  const uint64_t before = visit == 0 ? lab_web_account_start(seed, account) : page[0];
  const uint64_t state = lab_web_account_next(before, mix, type, visit);
  write_state(page, state);
  const uint32_t bytes = lab_web_page_bytes(mix, type);
  for (uint32_t i = 0; i < (bytes + 7) / 8; ++i) body[i] = lab_web_word(state, i);
  FCGX_FPrintF(request->out, "Content-Type: text/html\r\nContent-Length: %d\r\n\r\n", (int)bytes);
  FCGX_PutStr((const char*)body, (int)bytes, request->out);
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: webapp SOCKET SEED\n");
    return 2;
  }
  const uint64_t seed = strtoull(argv[2], NULL, 0);
  uint64_t* accounts = mmap(NULL, (size_t)LAB_WEB_ACCOUNTS * LAB_PAGE_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (accounts == MAP_FAILED) {
    fprintf(stderr, "webapp: allocate accounts: %s\n", strerror(errno));
    return 1;
  }
  for (uint64_t account = 0; account < LAB_WEB_ACCOUNTS; ++account) {
    write_state(page_of(accounts, account), lab_web_account_start(seed, account));
  }
  FCGX_Request request;
  const int listener = FCGX_Init() == 0 ? FCGX_OpenSocket(argv[1], kBacklog) : -1;
  if (listener < 0 || FCGX_InitRequest(&request, listener, 0) != 0) {
    fprintf(stderr, "webapp: listen at %s: %s\n", argv[1], strerror(errno));
    return 1;
  }
  while (FCGX_Accept_r(&request) == 0) {
    answer(&request, accounts, seed);
    FCGX_Finish_r(&request);
  }
  fprintf(stderr, "webapp: accept: %s\n", strerror(errno));
  return 1;
}
