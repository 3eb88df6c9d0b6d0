// A closed loop of requests over kept-open connections: each connection has one request on its way,
// and sends the next one a while after the response.
//
// Knows no protocol (Session does) and not what a run means; responsible for when things are done,
// for what is counted, and for the report.
#ifndef POSTCOPY_LAB_LOAD_CLOSED_LOOP_H_
#define POSTCOPY_LAB_LOAD_CLOSED_LOOP_H_

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace postcopy_lab {

struct LoopOptions {
  int connections = 8;
  std::chrono::milliseconds think{5};     // from a response to the next request of that connection
  std::chrono::milliseconds timeout{0};   // 0: none; a request older than that has failed
  std::chrono::milliseconds duration{0};  // 0: until SIGTERM or SIGINT
  std::string output;                     // the JSON's path; empty: standard output
};

// One connection and the requests on it. Called on the loop's thread only; nothing blocks.
class Session {
 public:
  enum class Event {
    kPending,    // nothing to tell yet
    kConnected,  // a request may be sent
    kFinished,   // the response has come and is right
    kFailed,     // it has come and is not: problem() says why. The connection stands
    kLost,       // the connection is closed; problem() says why
  };

  virtual ~Session() = default;
  // Begins to connect. False: lost.
  virtual bool Connect() = 0;
  // Sends a request of its choice. False: lost. REQUIRES: connected, no request on the way.
  virtual bool SendNext() = 0;
  // To be called when the socket is ready for anything.
  virtual Event OnReady() = 0;
  // The connection is given up, by the loop or after kLost; what was asked is not answered.
  virtual void Close() = 0;

  // -1 when closed.
  virtual int descriptor() const = 0;
  virtual bool connected() const = 0;
  // The last request, for a person.
  virtual const std::string& request() const = 0;
  virtual const std::string& problem() const = 0;
};

// Runs the loop on this thread and writes the JSON; `add` may add to it. A failed request is
// counted, never sent again; a lost connection is counted and replaced after 100 ms. Prints
// "started" on standard output with the first response. Returns the process's exit code: 0 also
// when requests failed, 1 when the JSON could not be written or the run could not begin (said on
// standard error).
int RunClosedLoop(const LoopOptions& options, std::vector<std::unique_ptr<Session>> sessions,
                  const std::function<void(nlohmann::json&)>& add);

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_CLOSED_LOOP_H_
