/* libpostcopy: relocate a running virtual machine at once, and let its memory follow.
 *
 * Attach: a VMM hands its guest RAM to its host's daemon (uffd-server), which does all the rest.
 * Engine: memory is fetched from a page server by this process itself, without a daemon.
 * Needs Linux 5.13 or later on x86-64; 6.1 or later for a VMM without privileges.
 *
 * Every function returns 0, or a negative errno value; results are stored only on success. No
 * function throws, raises a signal, installs a handler or ends the process. The library's threads
 * have every signal blocked. After fork() the child must not use a handle of its parent.
 */
#ifndef POSTCOPY_POSTCOPY_H
#define POSTCOPY_POSTCOPY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define POSTCOPY_API __attribute__((visibility("default")))
#else
#define POSTCOPY_API
#endif

#define POSTCOPY_VERSION_MAJOR 0
#define POSTCOPY_VERSION_MINOR 1
#define POSTCOPY_VERSION_PATCH 0

/* The version of the library that was loaded, e.g. "0.1.0". Static; never NULL. Does not block. */
POSTCOPY_API const char *postcopy_version(void);

/* --- attach ---------------------------------------------------------------------------------- */

/* A VM's registration with its host's daemon. Opaque. */
typedef struct postcopy_attachment postcopy_attachment;

struct postcopy_attach_options {
  /* sizeof(struct postcopy_attach_options) of the caller: fields may be added at the end, and what
   * an older caller does not have takes its default. */
  size_t size;
  /* The VM's name on this host: 1 to 128 bytes of printable ASCII without '/'. Required. */
  const char *vm_name;
  /* The daemon's socket. NULL: /run/postcopy/agent.sock. */
  const char *agent_path;
  /* The VMM's QMP socket, an absolute path of at most 107 bytes. NULL: none. */
  const char *qmp_path;
  /* Told what a person should know, one line without newline at a time, on the library's thread; it
   * must return soon and must not call postcopy_detach(). NULL: stderr. `line` is valid during the
   * call only. */
  void (*log)(void *log_context, const char *line);
  void *log_context;
};

/* Starts one thread, which registers the VM with the daemon and stays registered, and stores the
 * handle. Does not wait for the daemon: it may come, go and come back at any time. Nothing is
 * registered before the first block is added. The options are copied.
 *   -EINVAL  a missing or unusable option, or a size that no release ever had
 *   -ENOMEM, -EAGAIN, -EMFILE  out of memory, threads or descriptors
 * Thread-safe. */
POSTCOPY_API int postcopy_attach(const struct postcopy_attach_options *options,
                                 postcopy_attachment **attachment);

/* Adds a RAM block that is a shared mapping of a file on tmpfs, or on hugetlbfs with pages of 2 MiB:
 * `size_bytes` at `address`, from `file_offset` of `fd` on. The descriptor is duplicated and stays the caller's. `name` (at most 255
 * bytes, copied) must be equal on both sides of a relocation; NULL: none. Address, size and offset
 * are multiples of 4096. The mapping must stay until postcopy_remove_block(). When the daemon
 * prepares a relocation *to* this VM, the block's content is discarded and every access to it
 * faults until its pages have arrived.
 *   -EINVAL  not aligned, empty, `name` too long, or `fd` is not a regular file
 *   -EOPNOTSUPP  the file is on neither
 *   -ENOSPC  there are 64 blocks already
 *   -EEXIST  a larger block covers the range
 *   -EMFILE  out of descriptors
 * A block that overlaps otherwise is replaced. Thread-safe; does not wait for the daemon. */
POSTCOPY_API int postcopy_add_shared_block(postcopy_attachment *attachment, const char *name,
                                           void *address, size_t size_bytes, int fd,
                                           uint64_t file_offset);

/* The same for private anonymous memory, which can be a destination only. */
POSTCOPY_API int postcopy_add_anonymous_block(postcopy_attachment *attachment, const char *name,
                                              void *address, size_t size_bytes);

/* Forgets every block that overlaps the range. Call before unmapping it.
 *   -ENOENT  there was none
 * Thread-safe; does not wait for the daemon. */
POSTCOPY_API int postcopy_remove_block(postcopy_attachment *attachment, void *address,
                                       size_t size_bytes);

/* Ends the connection and the thread and frees the handle; NULL is allowed. Waits until a request
 * of the daemon that is being carried out is done. Not to be called while pages of the VM are still
 * missing: if the daemon holds no userfaultfd of this process any more, they read as zero. No other
 * call with this handle may be in progress. */
POSTCOPY_API void postcopy_detach(postcopy_attachment *attachment);

/* --- engine ---------------------------------------------------------------------------------- */

/* Memory that arrives from a page server while it is being used. Opaque. */
typedef struct postcopy_engine postcopy_engine;

struct postcopy_region {
  /* The page server's name of the region: at most 255 bytes. */
  const char *name;
  /* Where the region is mapped, in the process whose accesses are to fault. */
  void *address;
  /* As large as the page server says. `address`, size and offset are multiples of 4096. */
  size_t size_bytes;
  /* A shared mapping: the descriptor of its file on tmpfs, or on hugetlbfs with pages of 2 MiB,
   * duplicated by the call, and where in the file the region begins. Private anonymous memory: -1
   * and 0. */
  int ram_file;
  uint64_t file_offset;
};

struct postcopy_engine_options {
  /* sizeof(struct postcopy_engine_options) of the caller, as above. */
  size_t size;
  /* The page server's addresses, "host:port", tried in order. At least one. */
  const char *const *addresses;
  size_t address_count;
  /* The session that the page server knows. */
  unsigned char session[16];
  /* Every region of the session, in any order. */
  const struct postcopy_region *regions;
  size_t region_count;
  /* -1: the regions are this process's; a userfaultfd is made, which needs access to
   * /dev/userfaultfd, CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1, and the regions are emptied.
   * Otherwise a userfaultfd with which the process that has the regions has registered them, and
   * emptied them first: MISSING for anonymous memory, MISSING and MINOR for shared files, with
   * UFFD_FEATURE_EVENT_REMOVE and non-blocking. Duplicated; stays the caller's. */
  int userfault;
  /* Connections for what nobody waits for: 1 to 16; 0 means 2. */
  unsigned bulk_lanes;
};

/* Connects to the page server and, from when it returns, answers faults on the regions and brings
 * the rest in the background, on 2 + bulk_lanes threads. Blocks at most 3 s an address and lane.
 *   -EINVAL  a missing or unusable option, or regions that are not those of the page server
 *   -ECONNREFUSED, -ETIMEDOUT, -ENOENT  no page server at any of the addresses
 *   -EPERM   userfaultfd may not be used
 *   -EPROTO  the page server does not know the session, or does not speak the protocol
 *   -ENOMEM, -EAGAIN  out of memory, threads or descriptors
 * On failure the regions are not registered; with userfault -1 their content may be lost. */
POSTCOPY_API int postcopy_engine_start(const struct postcopy_engine_options *options,
                                       postcopy_engine **engine);

/* Waits until every page is here. Then nothing is registered any more, no thread of the engine is
 * left, and using the memory costs what it always did.
 *   0           it is so
 *   -ETIMEDOUT  not within `timeout_ms`; call again. While the page server cannot be reached, or pages
 *               cannot be installed (memory is short, a file system full), the engine tries again by
 *               itself, threads that touch a missing page wait, and postcopy_engine_error() says why
 *   -EPIPE      for good: the process that has the regions is gone. postcopy_engine_error() says more
 * One thread at a time. */
POSTCOPY_API int postcopy_engine_wait(postcopy_engine *engine, unsigned timeout_ms);

/* Why postcopy_engine_wait() returned -EPIPE, or why nothing arrived when it returned -ETIMEDOUT; "" otherwise. Valid until the next call or until the engine is freed. */
POSTCOPY_API const char *postcopy_engine_error(postcopy_engine *engine);

struct postcopy_figures {
  /* sizeof(struct postcopy_figures) of the caller: fields may be added at the end. What the library
   * that was loaded does not know is set to 0. */
  size_t size;
  uint64_t ram_bytes;     /* of all regions */
  uint64_t data_bytes;    /* of these, what the source has data for; 0 until that is known */
  uint64_t present_bytes; /* of data_bytes, what is here */
  uint64_t faults;        /* pages that were asked for because somebody waited */
  double fault_p50_us;    /* event read to wake, microseconds */
  double fault_p99_us;
  double fault_max_us;
};
/* Thread-safe; does not block. -EINVAL: a size that no release ever had. */
POSTCOPY_API int postcopy_engine_get_figures(postcopy_engine *engine,
                                             struct postcopy_figures *figures);

/* Ends threads and connections and frees the handle; NULL is allowed. If pages are missing still
 * and `userfault` was -1, they read as zero from then on. No other call with this handle may be in
 * progress. */
POSTCOPY_API void postcopy_engine_free(postcopy_engine *engine);

#ifdef __cplusplus
}
#endif

#endif /* POSTCOPY_POSTCOPY_H */
