#include "platform/quiet_thread.h"

#include <pthread.h>
#include <signal.h>

#include <cassert>
#include <memory>
#include <utility>

namespace postcopy {
namespace {

struct Arguments {
  std::string name;
  std::function<void()> body;
};

void* Run(void* argument) {
  const std::unique_ptr<Arguments> start(static_cast<Arguments*>(argument));
  pthread_setname_np(pthread_self(), start->name.c_str());
  start->body();
  return nullptr;
}

}  // namespace

Result<QuietThread> QuietThread::Start(const std::string& name, std::function<void()> body) {
  auto start = std::make_unique<Arguments>(Arguments{name, std::move(body)});
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // the new thread inherits it
  pthread_t thread{};
  const int cause = pthread_create(&thread, nullptr, Run, start.get());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (cause != 0) return ErrnoError(cause, "start thread " + name);
  (void)start.release();  // Run() owns it
  QuietThread started;
  started.thread_ = thread;
  started.joinable_ = true;
  return started;
}

QuietThread::QuietThread(QuietThread&& other) noexcept
    : thread_(other.thread_), joinable_(std::exchange(other.joinable_, false)) {}

QuietThread::~QuietThread() { assert(!joinable_); }

void QuietThread::Join() {
  if (!joinable_) return;
  pthread_join(thread_, nullptr);
  joinable_ = false;
}

}  // namespace postcopy
