// C++ on top of postcopy.h, header-only: owners instead of handles, std::error_code instead of
// negative numbers. Adds nothing else; the contracts are those of postcopy.h.
#pragma once

#include <postcopy/postcopy.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

namespace postcopy {

struct AttachmentOptions {
  std::string vm_name;
  std::string agent_path;                        // empty: the default
  std::string qmp_path;                          // empty: none
  std::function<void(const std::string&)> log;   // empty: stderr. Must not throw
};

// A VM's registration; detaches when it is destroyed.
class Attachment {
 public:
  // Empty, with `error` set, on failure.
  static Attachment Attach(const AttachmentOptions& options, std::error_code& error) {
    Attachment made;
    made.log_ = std::make_unique<std::function<void(const std::string&)>>(options.log);
    postcopy_attach_options raw{};
    raw.size = sizeof raw;
    raw.vm_name = options.vm_name.c_str();
    raw.agent_path = options.agent_path.empty() ? nullptr : options.agent_path.c_str();
    raw.qmp_path = options.qmp_path.empty() ? nullptr : options.qmp_path.c_str();
    if (options.log) {
      raw.log = [](void* context, const char* line) {
        (*static_cast<std::function<void(const std::string&)>*>(context))(line);
      };
      raw.log_context = made.log_.get();
    }
    error = Code(postcopy_attach(&raw, &made.handle_));
    return made;
  }

  Attachment() = default;
  Attachment(Attachment&& other) noexcept
      : log_(std::move(other.log_)), handle_(std::exchange(other.handle_, nullptr)) {}
  Attachment& operator=(Attachment&& other) noexcept {
    if (this != &other) {
      postcopy_detach(handle_);
      handle_ = std::exchange(other.handle_, nullptr);
      log_ = std::move(other.log_);
    }
    return *this;
  }
  ~Attachment() { postcopy_detach(handle_); }

  explicit operator bool() const { return handle_ != nullptr; }

  // REQUIRES of the following: not empty.
  std::error_code AddSharedBlock(const std::string& name, void* address, std::size_t size_bytes,
                                 int fd, std::uint64_t file_offset) {
    return Code(postcopy_add_shared_block(handle_, name.c_str(), address, size_bytes, fd,
                                          file_offset));
  }
  std::error_code AddAnonymousBlock(const std::string& name, void* address,
                                    std::size_t size_bytes) {
    return Code(postcopy_add_anonymous_block(handle_, name.c_str(), address, size_bytes));
  }
  std::error_code RemoveBlock(void* address, std::size_t size_bytes) {
    return Code(postcopy_remove_block(handle_, address, size_bytes));
  }

 private:
  static std::error_code Code(int result) { return {-result, std::generic_category()}; }

  std::unique_ptr<std::function<void(const std::string&)>> log_;  // outlives the handle
  postcopy_attachment* handle_ = nullptr;
};

// Memory that arrives from a page server; freed when it is destroyed.
class Fetching {
 public:
  // Empty, with `error` set, on failure.
  static Fetching Start(const postcopy_engine_options& options, std::error_code& error) {
    Fetching started;
    error = {-postcopy_engine_start(&options, &started.handle_), std::generic_category()};
    return started;
  }

  Fetching() = default;
  Fetching(Fetching&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Fetching& operator=(Fetching&& other) noexcept {
    if (this != &other) {
      postcopy_engine_free(handle_);
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  ~Fetching() { postcopy_engine_free(handle_); }

  explicit operator bool() const { return handle_ != nullptr; }

  // REQUIRES of the following: not empty. No error: every page is here.
  std::error_code Wait(std::chrono::milliseconds timeout) {
    return {-postcopy_engine_wait(handle_, static_cast<unsigned>(timeout.count())),
            std::generic_category()};
  }
  std::string Error() { return postcopy_engine_error(handle_); }
  postcopy_figures Figures() {
    postcopy_figures figures{};
    figures.size = sizeof figures;
    postcopy_engine_get_figures(handle_, &figures);
    return figures;
  }

 private:
  postcopy_engine* handle_ = nullptr;
};

}  // namespace postcopy
