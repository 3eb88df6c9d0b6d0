// What another daemon may say in a call, and what the daemon may tell postcopyctl: messages of any
// content. First byte of the input: which message. What is accepted keeps within the limits and
// makes the same message again; what is shown of it fits where it is shown.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "cli/json_output.h"
#include "cli/progress_view.h"
#include "control/convert.h"
#include "control/printable_message.h"
#include "core/session_id.h"

namespace postcopy {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

template <typename Message>
void CheckComesBack(Message message) {
  MakePrintable(message);  // as it is told
  const auto plain = FromProto(message);
  if (!plain.ok()) {
    Require(absl::IsInvalidArgument(plain.status()) && !plain.status().message().empty());
    return;
  }
  message.DiscardUnknownFields();
  Require(ToProto(*plain).SerializeAsString() == message.SerializeAsString());
}

void CheckOffer(const v1::OfferRequest& message) {
  CheckComesBack(message);
  const auto offer = FromProto(message);
  if (!offer.ok()) return;
  Require(CheckSession(offer->session).ok());
  Require(!offer->vm.empty() && offer->vm.size() <= kMaxNameBytes);
  MemoryLayout layout;
  for (const OfferedRegion& offered : offer->ram) {
    layout.regions.push_back(offered.region);
    for (const PageRange& range : offered.data) {
      const uint64_t pages = offered.region.count_pages();
      Require(range.first.value <= pages && range.count_pages <= pages - range.first.value);
    }
  }
  Require(Validate(layout).ok());
}

// As if each were the session's next word.
void CheckView(const v1::Progress& message, ProgressView& view) {
  view.Add(message);
  Require(view.percent() >= 0 && view.percent() <= 100);
  for (const int width : {0, 1, 20, 80, 300}) {
    Require(view.Bar(width).size() <= static_cast<size_t>(std::max(0, width - 1)));
  }
  Require(!view.Line().empty());
  Require(!view.Summary(1e9).empty());
  Require(ToJson(message).is_object());
}

void CheckProgress(const v1::Progress& message) {
  CheckComesBack(message);
  ProgressView view;
  CheckView(message, view);
  v1::Progress next = message;  // a second later, more of it
  next.set_elapsed_ms(message.elapsed_ms() + 1000);
  next.set_present_bytes(message.present_bytes() + 1);
  next.set_demand_bytes(message.demand_bytes() + (1 << 20));
  CheckView(next, view);
}

void CheckState(v1::State message) {
  const auto state = FromProto(message);
  if (state.ok()) Require(ToProto(*state) == message);
}

void CheckWords(const std::string& word) {
  const auto record = RecordFromWord(word);
  if (record.ok()) Require(RecordWord(*record) == word);
  Require(CheckSession(word).ok() == SessionId::Parse(word).has_value());
}

void Read(const uint8_t* data, int size) {
  v1::OfferRequest offer;
  v1::Progress progress;
  v1::ListResponse list;
  switch (data[0] % 4) {
    case 0:
      if (offer.ParseFromArray(data + 1, size - 1)) CheckOffer(offer);
      return;
    case 1:
      if (!progress.ParseFromArray(data + 1, size - 1)) return;
      CheckState(progress.state());
      CheckProgress(progress);
      return;
    case 2:
      if (list.ParseFromArray(data + 1, size - 1)) Require(ToJson(list).is_object());
      return;
    case 3: CheckWords(std::string(data + 1, data + size)); return;
  }
}

}  // namespace
}  // namespace postcopy

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);  // it prints each text that is not UTF-8
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) postcopy::Read(data, static_cast<int>(size));
  return 0;
}
