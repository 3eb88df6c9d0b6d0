/* Uses the C ABI as an outside program would. Exit code 0: each call answered as the manual says. */
#include <errno.h>
#include <postcopy/postcopy.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define REGION_BYTES 4096

static int failures;

static void expect(const char *what, int got, int wanted) {
  if (got == wanted) return;
  fprintf(stderr, "%s: %d, not %d\n", what, got, wanted);
  failures++;
}

static void ignore_line(void *context, const char *line) {
  (void)context;
  (void)line;
}

static void try_attach(void) {
  postcopy_attachment *vm = NULL;
  struct postcopy_attach_options options = {.size = sizeof options, .log = ignore_line};
  expect("attach without a name", postcopy_attach(&options, &vm), -EINVAL);

  options.vm_name = "outside";
  options.agent_path = "/nonexistent/agent.sock";
  expect("attach without a daemon", postcopy_attach(&options, &vm), 0);
  expect("remove a block that is not there", postcopy_remove_block(vm, &options, 4096), -ENOENT);
  postcopy_detach(vm);
}

static void try_engine(void) {
  const char *nobody = "127.0.0.1:1";
  struct postcopy_region region = {.name = "ram", .size_bytes = REGION_BYTES, .ram_file = -1};
  struct postcopy_engine_options options = {.size = sizeof options,
                                            .addresses = &nobody,
                                            .address_count = 1,
                                            .regions = &region,
                                            .region_count = 1,
                                            .userfault = -1};
  postcopy_engine *engine = NULL;
  region.address =
      mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  expect("engine without a page server", postcopy_engine_start(&options, &engine), -ECONNREFUSED);
  postcopy_engine_free(NULL);
}

int main(void) {
  char version[32];
  snprintf(version, sizeof version, "%d.%d.%d", POSTCOPY_VERSION_MAJOR, POSTCOPY_VERSION_MINOR,
           POSTCOPY_VERSION_PATCH);
  expect("version of header and library", strcmp(version, postcopy_version()), 0);
  try_attach();
  try_engine();
  puts(postcopy_version());
  return failures != 0;
}
