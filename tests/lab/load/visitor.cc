#include "visitor.h"

#include <sys/epoll.h>

#include <algorithm>
#include <span>
#include <utility>

#include "real_clock.h"

namespace postcopy_lab {
namespace {

using std::chrono::duration_cast;
using std::chrono::microseconds;

constexpr uint64_t kLeastRead = 512;  // bytes that are worth a look at a connection

}  // namespace

Visitor::Visitor(WebSite& site, uint32_t account, Clock::time_point arrival)
    : site_(site), account_(account), next_page_(arrival) {
  for (Line& line : lines_) line.visitor = this;
}

void Visitor::Act(Clock::time_point now) {
  if (gone_) return;
  if (next_page_ && *next_page_ <= now) StartPage(now);
  for (Line& line : lines_) {
    if (!line.rests_until || *line.rests_until > now) continue;
    line.rests_until.reset();
    Watch(line, EPOLLIN);
    if (line.stood) Receive(line, now);
    Serve(now);
  }
}

Visitor::Clock::time_point Visitor::NextAct() const {
  Clock::time_point next = next_page_.value_or(Clock::time_point::max());
  for (const Line& line : lines_) {
    if (line.rests_until) next = std::min(next, *line.rests_until);
  }
  return next;
}

void Visitor::OnReady(void* tag) {
  Line& line = *static_cast<Line*>(tag);
  if (line.connection.descriptor() < 0 || line.rests_until) return;
  const Clock::time_point now = Clock::now();
  line.visitor->Receive(line, now);
  line.visitor->Serve(now);
}

void Visitor::StartPage(Clock::time_point now) {
  next_page_.reset();
  page_start_ = RealNow();
  page_bytes_ = 0;
  wanted_.push_back(type().kind == PageType::Kind::kDownload ? DownloadRequest() : PageRequest());
  Serve(now);
}

Visitor::Request Visitor::PageRequest() {
  const auto number = static_cast<uint32_t>(page_);
  const AccountBook::Visit visit = site_.accounts.Next(account_, site_.mix.number, number);
  return {.path = "/page?" + std::to_string(site_.mix.number) + "." + std::to_string(number) + "." +
                  std::to_string(account_) + "." + std::to_string(visit.number),
          .key = visit.key,
          .length = lab_web_page_bytes(site_.mix.number, number),
          .is_page = true,
          .line_bytes_per_s = site_.page_line_bytes_per_s};
}

Visitor::Request Visitor::DownloadRequest() {
  const Download chosen = site_.files.DrawDownload(site_.random);
  return {.path = "/w/" + std::to_string(chosen.directory) + "/d" + std::to_string(chosen.number),
          .key = lab_web_download_key(site_.content_seed, chosen.directory, chosen.number),
          .length = lab_web_download_bytes(chosen.number),
          .line_bytes_per_s = site_.download_line_bytes_per_s};
}

Visitor::Request Visitor::FileRequest() {
  const StaticFile chosen = site_.files.DrawFile(site_.random);
  return {
      .path = "/w/" + std::to_string(chosen.directory) + "/c" + std::to_string(chosen.file_class) +
              "_" + std::to_string(chosen.file),
      .key = lab_web_file_key(site_.content_seed, chosen.directory, chosen.file_class, chosen.file),
      .length = lab_web_file_bytes(chosen.file_class, chosen.file),
      .line_bytes_per_s = site_.page_line_bytes_per_s};
}

// Keeps both connections busy as long as the page wants anything; ends the page when nothing is
// left.
void Visitor::Serve(Clock::time_point now) {
  if (gone_ || !loading()) return;
  for (Line& line : lines_) {
    if (!line.request && !wanted_.empty()) Give(line, now);
  }
  if (unfinished_requests() == 0) EndPage(now);
}

void Visitor::Give(Line& line, Clock::time_point now) {
  line.request = std::move(wanted_.front());
  wanted_.pop_front();
  line.given = now;
  if (line.connection.connected()) return Send(line, now);
  if (line.connection.Connect(site_.server) == HttpConnection::Outcome::kLost) {
    return Lose(line, line.connection.problem());
  }
  const std::string problem = site_.poll.Add(line.connection.descriptor(), EPOLLOUT, &line);
  if (!problem.empty()) Lose(line, problem);
}

void Visitor::Send(Line& line, Clock::time_point now) {
  line.check.Start(line.request->key);
  line.limit.Start(now, line.request->line_bytes_per_s);
  if (line.connection.Send(line.request->path) == HttpConnection::Outcome::kLost) {
    Lose(line, line.connection.problem());
  }
}

// Reads as much as the visitor's line would have brought by now.
void Visitor::Receive(Line& line, Clock::time_point now) {
  const uint64_t allowance = line.limit.Allowance(now, line.check.bytes());
  const auto outcome =
      line.connection.OnReady([&](std::span<const char> bytes) { line.check.Feed(bytes); },
                              std::max(allowance, kLeastRead));
  switch (outcome) {
    case HttpConnection::Outcome::kPending:
      if (line.request && line.limit.Allowance(now, line.check.bytes()) < kLeastRead) {
        line.rests_until = line.limit.NextLook(now, line.connection.response().length_bytes());
        Watch(line, 0);
      }
      return;
    case HttpConnection::Outcome::kConnected:
      line.stood = true;
      Watch(line, EPOLLIN);
      if (line.request) Send(line, now);
      return;
    case HttpConnection::Outcome::kResponse:
      return OnResponse(line, now);
    case HttpConnection::Outcome::kLost:
      return Lose(line, line.connection.problem());
  }
}

void Visitor::OnResponse(Line& line, Clock::time_point now) {
  if (!line.request) return Lose(line, "response that nobody asked for");
  const HttpResponse& response = line.connection.response();
  page_bytes_ += line.check.bytes();
  if (response.status() != 200) {
    Fail(line, "status " + std::to_string(response.status()));
  } else if (response.length_bytes() != line.request->length) {
    Fail(line, "length " + std::to_string(response.length_bytes()));
  } else if (!line.check.right()) {
    Fail(line, "content");
  } else {
    site_.requests.Finished(RealNow(), duration_cast<microseconds>(now - line.given));
    if (line.request->is_page && !failed_) {
      for (int i = 0; i < type().embedded_files; ++i) wanted_.push_back(FileRequest());
    }
  }
  line.request.reset();
}

void Visitor::Watch(Line& line, uint32_t events) {
  const std::string problem = site_.poll.Change(line.connection.descriptor(), events, &line);
  if (!problem.empty()) Lose(line, problem);
}

// What the line was asked for will never be right; nothing more of the page is asked for.
void Visitor::Fail(Line& line, const std::string& cause) {
  site_.requests.Failed(RealNow(), line.request->path, cause);
  failed_ = true;
  wanted_.clear();
}

void Visitor::Lose(Line& line, const std::string& cause) {
  if (line.stood) site_.requests.LostConnection();
  if (line.request) Fail(line, cause);
  line.stood = false;
  line.request.reset();
  line.rests_until.reset();
  line.connection.Close();
}

void Visitor::EndPage(Clock::time_point now) {
  site_.pages.Add(type(), page_start_, RealNow(), page_bytes_,
                  failed_ ? PageLog::Outcome::kFailed : PageLog::Outcome::kFinished);
  const auto next = PageAfter(site_.mix, page_, site_.random.Uniform());
  if (failed_ || !next) return Leave();
  page_ = *next;
  next_page_ = now;
  if (type().kind != PageType::Kind::kImage) {
    *next_page_ += duration_cast<Clock::duration>(
        std::chrono::duration<double>(site_.random.Exponential(site_.think.count())));
  }
}

void Visitor::Leave() {
  if (!failed_) site_.accounts.Return(account_);
  for (Line& line : lines_) line.connection.Close();
  gone_ = true;
}

int Visitor::unfinished_requests() const {
  return static_cast<int>(std::count_if(lines_.begin(), lines_.end(),
                                        [](const Line& line) { return line.request.has_value(); }));
}

Visitor::Clock::duration Visitor::oldest_wait(Clock::time_point now) const {
  Clock::duration oldest{0};
  for (const Line& line : lines_) {
    if (line.request) oldest = std::max(oldest, now - line.given);
  }
  return oldest;
}

void Visitor::Abandon() {
  if (gone_ || !loading()) return;
  for (const Line& line : lines_) {
    if (line.request && line.stood) page_bytes_ += line.check.bytes();
  }
  site_.pages.Add(type(), page_start_, RealNow(), page_bytes_, PageLog::Outcome::kUnfinished);
}

}  // namespace postcopy_lab
