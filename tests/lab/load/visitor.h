// One visitor of the web site, from the first page of a session to the last: pages with all that
// they embed, and time to think between them.
//
// Over two connections that are kept open. Nothing is asked for twice: a page of which anything
// fails has failed, and the visitor leaves. Not responsible for when visitors come (browse_run.h).
#ifndef POSTCOPY_LAB_LOAD_VISITOR_H_
#define POSTCOPY_LAB_LOAD_VISITOR_H_

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <string>

#include "account_book.h"
#include "content_check.h"
#include "event_poll.h"
#include "file_choice.h"
#include "http_connection.h"
#include "line_limit.h"
#include "page_log.h"
#include "random.h"
#include "timing_log.h"
#include "web_mix.h"

namespace postcopy_lab {

// What all visitors of a run share.
struct WebSite {
  const WebMix& mix;
  Server server;
  uint64_t content_seed;  // of the guest
  FileChoice files;
  std::chrono::duration<double> think;  // mean
  uint64_t page_line_bytes_per_s;       // of each connection; 0: no limit
  uint64_t download_line_bytes_per_s;
  Random random;
  AccountBook accounts;
  TimingLog requests;
  PageLog pages;
  EventPoll poll;
};

// One thread. Stays where it is: its connections point at it.
class Visitor {
 public:
  using Clock = std::chrono::steady_clock;

  // Asks for the first page at `arrival`. `site` must outlive it.
  Visitor(WebSite& site, uint32_t account, Clock::time_point arrival);
  Visitor(const Visitor&) = delete;
  Visitor& operator=(const Visitor&) = delete;

  // Does what is due. To be called at NextAct() or later.
  void Act(Clock::time_point now);
  // time_point::max(): only when a connection is ready.
  Clock::time_point NextAct() const;
  // For what WebSite's poll hands out.
  static void OnReady(void* tag);

  // Has seen the last page; its connections are closed.
  bool gone() const { return gone_; }
  int unfinished_requests() const;
  // How long the oldest of them has been waited for; 0 if there is none.
  Clock::duration oldest_wait(Clock::time_point now) const;
  // The run ends: a page that is not whole is logged as unfinished.
  void Abandon();

 private:
  struct Request {
    std::string path;
    uint64_t key = 0;
    uint64_t length = 0;
    bool is_page = false;  // made by the web program; what it embeds comes after it
    uint64_t line_bytes_per_s = 0;
  };
  struct Line {
    Visitor* visitor = nullptr;
    HttpConnection connection;
    bool stood = false;              // the connection was made and has not been given up
    std::optional<Request> request;  // on its way, or waits for the connection
    Clock::time_point given{};       // if there is a request
    ContentCheck check;
    LineLimit limit;
    std::optional<Clock::time_point> rests_until;  // what has arrived by now was read
  };

  const PageType& type() const { return site_.mix.pages[static_cast<size_t>(page_)]; }
  bool loading() const { return !next_page_; }
  void StartPage(Clock::time_point now);
  Request PageRequest();
  Request DownloadRequest();
  Request FileRequest();
  void Serve(Clock::time_point now);
  void Give(Line& line, Clock::time_point now);
  void Send(Line& line, Clock::time_point now);
  void Receive(Line& line, Clock::time_point now);
  void OnResponse(Line& line, Clock::time_point now);
  void Watch(Line& line, uint32_t events);
  void Fail(Line& line, const std::string& cause);
  void Lose(Line& line, const std::string& cause);
  void EndPage(Clock::time_point now);
  void Leave();

  WebSite& site_;
  const uint32_t account_;
  int page_ = 0;
  std::optional<Clock::time_point> next_page_;  // none while one is loading
  bool gone_ = false;
  bool failed_ = false;  // anything, ever
  RealTime page_start_{};
  uint64_t page_bytes_ = 0;
  std::deque<Request> wanted_;  // for this page, not yet asked for
  std::array<Line, 2> lines_;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_VISITOR_H_
