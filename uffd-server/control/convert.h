// Plain types of relocation/ as messages of postcopy.v1 and back.
//
// What comes from another daemon is checked here, before anything acts on it: kInvalidArgument
// names the field. Not responsible for whether the two sides fit each other.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/postcopy.pb.h"
#include "relocation/relocation.h"

namespace postcopy {

// Extents that an offer carries at most. They are a hint: those beyond are left out.
inline constexpr int kMaxOfferedExtents = 1 << 20;
inline constexpr size_t kMaxNameBytes = 255;
inline constexpr size_t kMaxDeviceBytes = 1024;  // "id:type" with what it is compared by
inline constexpr int kMaxListedNames = 4096;  // devices, data addresses

v1::State ToProto(SessionState state);
absl::StatusOr<SessionState> FromProto(v1::State state);

absl::StatusOr<SourceLostAction> FromProto(v1::SourceLostAction action);

v1::Progress ToProto(const Progress& progress);
absl::StatusOr<Progress> FromProto(const v1::Progress& message);

v1::Vm ToProto(const VmSummary& vm);
v1::Owed ToOwed(const Progress& progress);

v1::OfferRequest ToProto(const Offer& offer);
// Checks names, sizes and extents against the limits of a MemoryLayout as well.
absl::StatusOr<Offer> FromProto(const v1::OfferRequest& message);
// The same for a check, where the source may not know its VM's RAM: none is accepted.
absl::StatusOr<Offer> CheckedOfferFromProto(const v1::OfferRequest& message);

// The words of Progress.role and QueryRequest.role.
const char* RoleWord(SessionRole role);
std::optional<SessionRole> RoleFromWord(std::string_view word);

// The words of QueryResponse.record.
std::string_view RecordWord(RecordedOutcome outcome);
absl::StatusOr<RecordedOutcome> RecordFromWord(std::string_view word);

// kInvalidArgument unless `session` is 32 lower-case hexadecimal digits. Sessions name files.
absl::Status CheckSession(const std::string& session);

}  // namespace postcopy
