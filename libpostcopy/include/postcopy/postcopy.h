/* libpostcopy: relocate a running virtual machine at once, and let its memory follow.
 *
 * Attach: a VMM hands its guest RAM to its host's daemon (uffd-server), which does all the rest.
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

/* Adds a RAM block that is a shared mapping of a file on tmpfs: `size_bytes` at `address`, from
 * `file_offset` of `fd` on. The descriptor is duplicated and stays the caller's. `name` (at most 255
 * bytes, copied) must be equal on both sides of a relocation; NULL: none. Address, size and offset
 * are multiples of 4096. The mapping must stay until postcopy_remove_block(). When the daemon
 * prepares a relocation *to* this VM, the block's content is discarded and every access to it
 * faults until its pages have arrived.
 *   -EINVAL  not aligned, empty, `name` too long, or `fd` is not a regular file
 *   -EOPNOTSUPP  the file is not on tmpfs
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

#ifdef __cplusplus
}
#endif

#endif /* POSTCOPY_POSTCOPY_H */
