/* The hand-over of one VM in one session, for spin: two daemons that may crash at every step, two durable
 * records, two VMMs that may die, and a network that loses, delays and repeats. README.md says what is left
 * out, what is checked and how to run it.
 *
 * A daemon is a set of atomic steps over its volatile state; where its threads take turns is not modelled, every
 * interleaving of the steps is. A crash and the restart after it are one step: what happens while a daemon is down
 * can as well happen before the next one takes its first step. Nothing counts crashes, deaths, losses or failed
 * writes: they come until `calm`.
 *
 * -DBUG_...: one seeded bug each, all found by tests/model/model_test.py. A comment with "Rule:" marks what was
 * found to be needed.
 */

mtype = { kNone,
  /* what a durable record says */
  kPrepared, kHandedOver, kRolledBack, kOffered, kOwner, kArrived, kCommitted, kNever,
  /* what a VMM does */
  kRuns, kHeld, kPostmigrate, kFenced, kQuit, kDead, kSpoilt,
  kWaits, kOpened, kLoaded, kStray, kOff, kEnded, kFresh,
  /* requests (the source also asks kQuery) and answers */
  kOffer, kOpen, kLoad, kAbort, kHandOver, kQuery, kConfirm, kTellArrived,
  kOk, kError, kNoAnswer, kNoRecord, kLater, kAborted, kUnrecorded, kOwned, kDataLoss, kGone, kFencedHere,
  /* where the source's daemon is */
  sOffering, sOpening, sStopping, sTaking, sLoading, sFencing, sLooking, sRecording, sRollingBack, sInDoubt, sAsking,
  sHandingOver, sServing, sUnrecorded, sResuming, sClosing, sLettingGo, sCommitting, sClosed, sDone };

/* ---- Durable. `rec` is what a read of the file gives, `disk` what is left of it when the host goes down: they
 * differ after a write that has failed. kNone: no file. */
mtype rec_s = kPrepared, disk_s = kPrepared;
mtype rec_d = kNone, disk_d = kNone;

/* ---- VMMs: they outlive their daemons. */
mtype vmm_s = kRuns;   /* kRuns, kHeld (pre-switchover, or its state under way; QEMU refuses `cont`), kPostmigrate,
                          kFenced (the same, its RAM inaccessible: a guest that is started touches it and its VMM
                          dies), kDead, kSpoilt (died after it had run on since its state was taken), kQuit (released
                          after the commit) */
mtype vmm_d = kWaits;  /* kWaits, kOpened, kLoaded (paused), kRuns, kStray (runs, but not by its daemon's word), kDead,
                          kOff (its guest has powered off, or an operator has ended it in order, and its daemon has
                          heard so), kEnded (by its daemon), kFresh (another QEMU, started under the name of one that is gone) */
bool armed_d;          /* the hook still keeps the userfaultfd of this session */
bool all_here;         /* every page is at the destination, or none is wanted any more */

/* ---- Volatile: the source's daemon. */
mtype phase_s = sOffering;
bool live_s = true;    /* the session is this daemon's own and has not ended (Relocator::MayHandOver) */
bool held_s = true;    /* its page source has the VM's memory, or can have it again from the VMM */

/* ---- Volatile: the destination's daemon. */
bool live_d;           /* it has the session, as offered to it or taken up again */
bool owner_d;          /* it has decided to be the owner; the record may not say so yet */
bool aborting_d;       /* it has decided that the VM never runs here; the record may not say so yet */
bool told_d;           /* it has told its VMM to run, or cannot know whether an earlier daemon has */
bool sure_d;           /* its last write of the record has succeeded: rec_d == disk_d */
bool known_d;          /* the VMM has registered with it */
bool clean_d;          /* no RESUME was seen on its monitor, which it has had since the load or since it saw the
                          machine paused */
bool refused_d;        /* the VMM has answered `cont` with an error, and nothing is under way to it */
bool confirmed_d;      /* since then the source has said that its VMM lives and is fenced */
mtype word_d = kNone;  /* what the source says: kHandedOver or kGone */

/* ---- The network. One call at a time each way; requests that their caller has given up may still come, and again. */
mtype call_sd = kNone, answer_sd = kNone;
mtype call_ds = kNone, answer_ds = kNone;
byte late_sd;          /* set of Bit(request) */
bool late_ds;          /* a kTellArrived */

/* ---- Ghosts and scratch. */
bool calm;             /* from now on nothing crashes, dies, is lost, fails or is meddled with */
bool ran_d;            /* the guest has run at the destination while its daemon was the owner */
bool ok;
mtype reply;

#ifdef NOTHING_LATE  /* a third of the states: enough to find a seeded bug */
#define Bit(r)      0
#else
#define Bit(r)      (r == kOffer -> 1 : (r == kOpen -> 2 : (r == kLoad -> 4 : (r == kAbort -> 8 : \
                     (r == kHandOver -> 16 : 0)))))
#endif
#define GoneAtSource (vmm_s == kDead || vmm_s == kSpoilt || vmm_s == kQuit)
/* Its state is out, and it is not to run again here. */
#define StateIsOut  (phase_s == sLoading || phase_s == sFencing || phase_s == sLooking || phase_s == sRecording || AfterRecord)
#define Dead(v)     (v == kDead || v == kEnded)
#define Used(v)     (v == kOpened || v == kLoaded || v == kStray)  /* only its end takes the session out of it */
/* What the source's daemon answers when it will never hand over any more. */
#define SaysGone    ((rec_s == kPrepared && !live_s) || rec_s == kRolledBack || rec_s == kNone)
#define IsOwner     (owner_d && !aborting_d && rec_d == kOwner && sure_d)
#define AfterRecord (phase_s == sAsking || phase_s == sHandingOver || phase_s == sServing || phase_s == sInDoubt)

/* Overwrites a record. `success`: its caller is told that it is durable; if not, it may be there all the same. A crash
 * within a write is a failed write and then the crash. */
inline Write(rec, disk, success, mark) {
  if
  :: rec = mark; disk = mark; success = true
  :: !calm -> success = false
  :: !calm -> rec = mark; success = false
  :: !calm -> rec = mark; disk = mark; success = false
  fi
}
inline EndCallOfSource() { call_sd = kNone; answer_sd = kNone }
inline EndCallOfDestination() { call_ds = kNone; answer_ds = kNone }

/* The caller gives up; whether the request still comes is open. */
inline LeaveCallOfSource() {
  if
  :: call_sd != kNone && answer_sd == kNone -> late_sd = late_sd | Bit(call_sd)
  :: true
  fi;
  EndCallOfSource()
}

inline HearsUnrecorded() {
#ifdef BUG_UNRECORDED_IS_ABORTED
  phase_s = sResuming
#else
  phase_s = sUnrecorded
#endif
}

inline StartLettingGo() {
#ifdef BUG_COMMITTED_IS_THE_END
  phase_s = sCommitting
#else
  phase_s = sLettingGo
#endif
}

/* Rule: before "committed" is written, so that who finds it written has nothing left to let go. */
inline LetGo() {
  assert(all_here);
  vmm_s = (vmm_s == kDead -> kDead : kQuit);
  held_s = false
}

inline GuestRunsAtSource() {
  assert(vmm_d != kRuns);  /* never two at a time */
  assert(!ran_d);          /* never here again */
  vmm_s = kRuns
}

/* Started under its daemon's word, or by an operator after "owner". */
inline GuestRunsAtDestination(state) {
  assert(vmm_s != kRuns);  /* never two at a time */
  assert(vmm_s != kSpoilt); /* the memory that is served is the one that belongs to the state */
  vmm_d = state; ran_d = true;
#ifdef BUG_NEVER_WITHOUT_AN_ANSWER
  clean_d = clean_d && refused_d  /* a monitor that gives no answer tells of no RESUME either */
#else
  clean_d = false
#endif
}

/* ======== All that nobody controls. First, so that a search tries the daemons' steps before it: found sooner. */

inline RestartSource() {
  LeaveCallOfSource();
  live_s = false;
  held_s = held_s && vmm_s != kDead && vmm_s != kSpoilt;
  if
  :: rec_s == kPrepared -> phase_s = sRollingBack
  :: rec_s == kHandedOver -> phase_s = sAsking
#ifdef BUG_ROLLED_BACK_IS_THE_END
  :: rec_s == kRolledBack -> phase_s = sDone
#else
  :: rec_s == kRolledBack -> phase_s = (vmm_s == kPostmigrate || vmm_s == kFenced -> sResuming : sDone)
#endif
  :: rec_s == kNone || rec_s == kCommitted -> phase_s = sDone
  fi
}
inline RestartDestination() {
  live_d = false; owner_d = false; aborting_d = false; told_d = false; sure_d = false; known_d = false; word_d = kNone;
  clean_d = false; refused_d = false; confirmed_d = false;
  vmm_d = (vmm_d == kOff -> kDead : vmm_d);  /* the next daemon has not heard its last word */
  if
  :: call_ds == kTellArrived && answer_ds == kNone -> late_ds = true
  :: true
  fi;
  EndCallOfDestination()
}
inline DestinationVmmDies() { vmm_d = kDead; known_d = false; armed_d = false }

active proctype World() {
end:
  do
  /* A hook finds the new daemon. */
  :: atomic { !known_d && !live_d && rec_d != kNone && !Dead(vmm_d) -> known_d = true }

  :: atomic { !calm -> calm = true; late_sd = 0; late_ds = false }
  :: atomic { !calm -> RestartSource() }
  :: atomic { !calm -> RestartDestination() }
  :: atomic { !calm && !GoneAtSource -> vmm_s = (vmm_s == kRuns && StateIsOut -> kSpoilt : kDead) }
  :: atomic { !calm && !Dead(vmm_d) && vmm_d != kFresh -> DestinationVmmDies() }
  /* A host goes down: its daemon, its VMM, and writes of its records that had not succeeded. */
  :: atomic { !calm -> vmm_s = (vmm_s == kQuit -> kQuit : (vmm_s == kSpoilt -> kSpoilt : kDead)); rec_s = disk_s; RestartSource() }
  :: atomic { !calm -> DestinationVmmDies(); rec_d = disk_d; RestartDestination() }

  /* A call or its answer is lost, or late. */
  :: atomic { !calm && call_sd != kNone && answer_sd == kNone ->
       if :: late_sd = late_sd | Bit(call_sd) :: true fi;
       answer_sd = kNoAnswer }
  :: atomic { !calm && answer_sd != kNone -> answer_sd = kNoAnswer }
  :: atomic { !calm && call_ds != kNone && answer_ds == kNone ->
       if :: late_ds = late_ds || call_ds == kTellArrived :: true fi;
       answer_ds = kNoAnswer }
  :: atomic { !calm && answer_ds != kNone -> answer_ds = kNoAnswer }

  /* A source QEMU whose stream breaks before its state is out resumes by itself. */
  :: atomic { !calm && vmm_s == kHeld -> GuestRunsAtSource() }
  /* An operator, or a program, says `cont` to it once its state is out. A fenced one dies, as it may at any time. */
  :: atomic { !calm && vmm_s == kPostmigrate -> GuestRunsAtSource() }
  /* An operator says `cont` to the destination's QEMU, and `stop` to a guest that runs; starts another one in place of
     one that is gone. */
  :: atomic { !calm && vmm_d == kLoaded && !IsOwner -> vmm_d = kStray; clean_d = false }
  :: atomic { !calm && vmm_d == kLoaded && IsOwner -> GuestRunsAtDestination(kStray) }
  :: atomic { !calm && (vmm_d == kStray || vmm_d == kRuns) && rec_d == kOwner && armed_d -> vmm_d = kLoaded }
  :: atomic { !calm && Dead(vmm_d) && !live_d -> vmm_d = kFresh }
  /* Another VM of that name is relocated from there: what has ended is forgotten. Rule: "never" has ended when the
     source says that it will not hand over. */
  :: atomic { !calm && phase_s == sDone && (rec_s == kRolledBack || rec_s == kCommitted) -> rec_s = kNone; disk_s = kNone }
  :: atomic { !calm && rec_d == kCommitted -> rec_d = kNone; disk_d = kNone }
#ifdef BUG_FORGET_NEVER
  :: atomic { !calm && rec_d == kNever && !aborting_d && !Used(vmm_d) && !armed_d -> rec_d = kNone; disk_d = kNone }
#else
  :: atomic { !calm && rec_d == kNever && !aborting_d && !Used(vmm_d) && !armed_d && SaysGone ->
       rec_d = kNone; disk_d = kNone }
#endif
  od
}

/* ======== Source: the operation Switch and, after the record, the attendant; also a restarted daemon. */

#define Asks(phase, request)  phase_s == phase && call_sd == kNone -> call_sd = request
/* Once a kTellArrived has brought the record up to date nothing more is asked. */
#define AsksOn(phase, request)  phase_s == phase && call_sd == kNone && rec_s != kCommitted -> call_sd = request
#define Hears(phase)          phase_s == phase && answer_sd != kNone

active proctype SourceSession() {
end:
  do
  :: atomic { Asks(sOffering, kOffer) }
  :: atomic { Hears(sOffering) -> phase_s = (answer_sd == kOk -> sOpening : sRollingBack); EndCallOfSource() }
  :: atomic { Asks(sOpening, kOpen) }
  :: atomic { Hears(sOpening) -> phase_s = (answer_sd == kOk -> sStopping : sRollingBack); EndCallOfSource() }
  :: atomic { phase_s == sStopping ->
       if
       :: vmm_s == kRuns -> vmm_s = kHeld; phase_s = sTaking
       :: else -> phase_s = sRollingBack
       fi }
  :: atomic { phase_s == sTaking ->  /* QEMU says `completed`, whatever the destination has read of it */
       if
       :: vmm_s == kHeld -> vmm_s = kPostmigrate; phase_s = sLoading
       :: else -> phase_s = sRollingBack
       fi }
  :: atomic { Asks(sLoading, kLoad) }
  :: atomic { Hears(sLoading) -> phase_s = (answer_sd == kOk -> sFencing : sRollingBack); EndCallOfSource() }
  /* In the code beside the load. What fails rolls back; a VMM that has died needs no fence. */
  :: atomic { phase_s == sFencing ->
       if
#ifdef BUG_NO_FENCE
       :: true -> phase_s = sLooking
#else
       :: vmm_s == kPostmigrate -> vmm_s = kFenced; phase_s = sLooking
       :: vmm_s == kPostmigrate && !calm -> phase_s = sRollingBack
       :: vmm_s == kRuns -> vmm_s = kSpoilt; phase_s = sLooking  /* started just before */
       :: vmm_s == kRuns -> phase_s = sRollingBack             /* and seen in time */
       :: GoneAtSource -> phase_s = sLooking
#endif
       fi }
  /* Rule: a RESUME since the state was taken, and before the fence, ends the relocation. */
  :: atomic { phase_s == sLooking ->
#ifdef BUG_FENCE_WITHOUT_A_LOOK
       phase_s = sRecording }
#else
       phase_s = (vmm_s == kRuns || vmm_s == kSpoilt -> sRollingBack : sRecording) }
#endif
  :: atomic { !calm && call_sd == kNone &&  /* cancelled by an operator, or a step that fails for itself */
              (phase_s == sOpening || phase_s == sStopping || phase_s == sTaking || phase_s == sLoading ||
               phase_s == sFencing || phase_s == sRecording) -> phase_s = sRollingBack }
  :: atomic { phase_s == sRecording ->  /* the switch */
       Write(rec_s, disk_s, ok, kHandedOver);
       phase_s = (ok -> sAsking : sInDoubt); ok = false }

  /* Before the switch: the destination is asked to give up, and no answer is needed. */
  :: atomic { Asks(sRollingBack, kAbort) }
  :: atomic { Hears(sRollingBack) ->
       if
       :: answer_sd == kOwned ->  /* this host went down and lost "handed over", and with it the VMM */
          assert(GoneAtSource); live_s = false; phase_s = sDone
       :: else -> phase_s = sResuming
       fi;
       EndCallOfSource() }

  /* Whether "handed over" was written is not known: its word is needed. */
  :: atomic { AsksOn(sInDoubt, kAbort) }
  :: atomic { Hears(sInDoubt) ->
       if
       :: answer_sd == kAborted -> phase_s = sResuming
       :: answer_sd == kUnrecorded -> HearsUnrecorded()
       :: answer_sd == kOwned -> phase_s = sAsking
       :: else
       fi;
       EndCallOfSource() }

  /* Handed over. */
  :: atomic { AsksOn(sAsking, kQuery) }
  :: atomic { Hears(sAsking) ->
       if
       :: answer_sd == kOwner -> phase_s = sServing
       :: answer_sd == kArrived || answer_sd == kCommitted -> StartLettingGo()
       :: else -> phase_s = sHandingOver
       fi;
       EndCallOfSource() }
  :: atomic { AsksOn(sHandingOver, kHandOver) }
  :: atomic { Hears(sHandingOver) ->
       if
       :: answer_sd == kOk -> phase_s = sServing
       :: answer_sd == kAborted -> phase_s = sResuming
       :: answer_sd == kUnrecorded -> HearsUnrecorded()
       :: answer_sd == kDataLoss -> live_s = false; phase_s = sDone
#ifdef BUG_RESUME_WITHOUT_NEVER
       :: answer_sd == kNoAnswer -> phase_s = sResuming
#endif
       :: else -> phase_s = sAsking
       fi;
       EndCallOfSource() }
  :: atomic { AsksOn(sServing, kQuery) }
  :: atomic { Hears(sServing) ->
       if
       :: answer_sd == kArrived || answer_sd == kCommitted -> StartLettingGo()
#ifndef BUG_OWNER_IS_THE_LAST_WORD
       :: answer_sd == kNever -> phase_s = sHandingOver  /* Rule: "owner" was read, then its VMM was seen dead */
#endif
       :: else
       fi;
       EndCallOfSource() }

  /* An operator knows what no daemon can find out: the destination's VMM has ended, and the VM never ran there. */
#ifdef BUG_TAKEN_BACK_FROM_THE_LIVING
  :: atomic { !calm && !ran_d && !GoneAtSource &&
              (phase_s == sInDoubt || phase_s == sAsking || phase_s == sHandingOver) ->
#else
  :: atomic { !calm && !ran_d && !GoneAtSource && Dead(vmm_d) &&
              (phase_s == sInDoubt || phase_s == sAsking || phase_s == sHandingOver) ->
#endif
       LeaveCallOfSource(); phase_s = sUnrecorded }

  /* Rule: the destination's VMM is dead, and that is not on the destination's disk: "rolled back" is on this one before
     the guest runs here. */
  :: atomic { phase_s == sUnrecorded ->
       Write(rec_s, disk_s, ok, kRolledBack);
       if
       :: ok -> phase_s = sResuming
       :: else
       fi;
       ok = false }

  /* The end of a session that stays here. */
  :: atomic { phase_s == sResuming ->
       if
       :: GoneAtSource -> live_s = false; phase_s = sDone; vmm_s = (vmm_s == kSpoilt -> kDead : vmm_s)
       :: vmm_s == kRuns -> phase_s = sClosing
       :: vmm_s == kFenced -> vmm_s = kPostmigrate
       :: else -> GuestRunsAtSource(); phase_s = sClosing
       fi }
  :: atomic { phase_s == sClosing ->
       Write(rec_s, disk_s, ok, kRolledBack);
       if
       :: ok -> live_s = false; phase_s = sDone
       :: else
       fi;
       ok = false }

  /* The end of one that has left. */
#ifndef BUG_COMMITTED_IS_THE_END
  :: atomic { phase_s == sLettingGo -> LetGo(); phase_s = sCommitting }
#endif
  :: atomic { phase_s == sCommitting ->
       Write(rec_s, disk_s, ok, kCommitted);
       if
       :: ok -> phase_s = sClosed
       :: else
       fi;
       ok = false }
  :: atomic { rec_s == kCommitted && AfterRecord -> LeaveCallOfSource(); phase_s = sClosed }
  :: atomic { phase_s == sClosed ->
#ifdef BUG_COMMITTED_IS_THE_END
       LetGo();
#endif
       live_s = false; phase_s = sDone }
  od
}

/* What the destination asks the source's daemon. */
inline OnArrived() {
  assert(all_here);
  assert(rec_s != kRolledBack);
  if
  :: rec_s == kNone -> reply = kNoRecord
  :: else ->
#ifndef BUG_COMMITTED_IS_THE_END
     LetGo();
#endif
#ifdef BUG_ACKNOWLEDGE_WHAT_IS_READ
     if
     :: rec_s == kCommitted -> ok = true
     :: else -> Write(rec_s, disk_s, ok, kCommitted)
     fi;
#else
     Write(rec_s, disk_s, ok, kCommitted);  /* Rule: at "committed", too, since what is read need not be durable */
#endif
     reply = (ok -> kOk : kError); ok = false
  fi
}

active proctype SourceCalls() {
end:
  do
  :: atomic { call_ds == kQuery && answer_ds == kNone ->
       if
       :: SaysGone && rec_s != kRolledBack -> answer_ds = kGone
       :: else -> answer_ds = rec_s
       fi }
  :: atomic { call_ds == kConfirm && answer_ds == kNone ->
       answer_ds = (rec_s == kHandedOver && vmm_s == kFenced -> kFencedHere : kError) }
  :: atomic { call_ds == kTellArrived && answer_ds == kNone -> OnArrived(); answer_ds = reply; reply = kNone }
  :: atomic { late_ds -> OnArrived(); reply = kNone; if :: late_ds = false :: true fi }
  od
}

/* ======== Destination. */

/* What the source asks the destination's daemon. `reply` kNone: it waits for what DestinationSession does. */
inline OnOffer() {
  if
  :: rec_d == kNone && vmm_d == kWaits ->
     Write(rec_d, disk_d, sure_d, kOffered);
     live_d = sure_d; known_d = true; armed_d = sure_d;
     reply = (sure_d -> kOk : kError)
  :: else -> reply = kError
  fi
}
inline OnOpen() {
  if
  :: live_d && !aborting_d && vmm_d == kWaits -> vmm_d = kOpened; reply = kOk
  :: else -> reply = kError
  fi
}
inline OnLoad() {
  if
  :: live_d && !aborting_d && vmm_d == kOpened -> vmm_d = kLoaded; clean_d = true; reply = kOk
  :: else -> reply = kError
  fi
}
/* The daemon that has the VMM's pidfd has seen it dead and cannot write "never": it may say so. Without that the VMM
 * may come back, and "owner" may turn out to be there. */
#ifdef BUG_UNRECORDED_BEFORE_DEAD
#define DeadUnrecorded  (live_d)
#else
#define DeadUnrecorded  (live_d && Dead(vmm_d))
#endif
inline WhileAborting() {
  if
  :: DeadUnrecorded && !calm -> reply = kUnrecorded
  :: true
  fi
}
inline OnAbort() {
  if
#ifdef BUG_FORGET_ARRIVED
  :: rec_d == kNone -> reply = kAborted
#else
  :: rec_d == kNone -> reply = kNoRecord
#endif
  :: rec_d == kNever -> reply = (sure_d -> kAborted : kNone)
  :: (rec_d == kOffered || rec_d == kOwner) && aborting_d -> WhileAborting()
  :: rec_d == kOffered && !aborting_d && !owner_d -> aborting_d = true; clean_d = false
  :: else -> reply = kOwned
  fi
}
inline OnHandOver() {
  if
#ifdef BUG_FORGET_ARRIVED
  :: rec_d == kNone -> reply = kAborted
#else
  :: rec_d == kNone -> reply = kNoRecord
#endif
  :: rec_d == kNever -> reply = (sure_d -> kAborted : kNone)
  :: rec_d == kArrived || rec_d == kCommitted -> reply = kOk
  :: rec_d == kOffered || rec_d == kOwner ->
     if
     :: aborting_d ->
#ifdef BUG_ABORTED_BEFORE_NEVER
        reply = kAborted
#else
        WhileAborting()
#endif
#ifdef BUG_UNREGISTERED_IS_DEAD
     :: !aborting_d && !live_d && rec_d == kOwner && !known_d -> reply = kDataLoss
#endif
     :: !aborting_d && !live_d -> word_d = (rec_d == kOffered -> kHandedOver : kNone); reply = kLater
     :: !aborting_d && live_d && told_d && (vmm_d == kRuns || vmm_d == kOff) -> reply = kOk
     :: !aborting_d && live_d && told_d && Dead(vmm_d) -> reply = kDataLoss
     :: !aborting_d && live_d && !owner_d && (vmm_d == kLoaded || vmm_d == kStray) -> owner_d = true
     :: !aborting_d && live_d && !owner_d && (vmm_d == kWaits || vmm_d == kOpened) -> reply = kError
     :: else
     fi
  fi
}

active proctype DestinationCalls() {
end:
  do
  :: atomic { call_sd != kNone && answer_sd == kNone ->
       if
       :: call_sd == kOffer -> OnOffer()
       :: call_sd == kOpen -> OnOpen()
       :: call_sd == kLoad -> OnLoad()
       :: call_sd == kAbort -> OnAbort()
       :: call_sd == kHandOver -> OnHandOver()
       :: call_sd == kQuery ->
          if
          :: rec_d == kNone -> reply = kNoRecord
          :: rec_d == kOwner && aborting_d -> reply = kOffered
          :: else -> reply = rec_d
          fi
       fi;
       answer_sd = reply; reply = kNone }
  :: atomic { late_sd & 1 -> OnOffer(); reply = kNone; if :: late_sd = late_sd & ~1 :: true fi }
  :: atomic { late_sd & 2 -> OnOpen(); reply = kNone; if :: late_sd = late_sd & ~2 :: true fi }
  :: atomic { late_sd & 4 -> OnLoad(); reply = kNone; if :: late_sd = late_sd & ~4 :: true fi }
  :: atomic { late_sd & 8 -> OnAbort(); reply = kNone; if :: late_sd = late_sd & ~8 :: true fi }
  :: atomic { late_sd & 16 -> OnHandOver(); reply = kNone; if :: late_sd = late_sd & ~16 :: true fi }
  od
}

/* What it does with what it has decided or found; each step as soon as it can. */
active proctype DestinationSession() {
end:
  do
  /* Not owner: what it sees of its VMM. */
  :: atomic { rec_d == kOffered && !owner_d && !aborting_d &&
              ((live_d && (Dead(vmm_d) || vmm_d == kStray)) || (!live_d && known_d && (vmm_d == kOpened || vmm_d == kStray))) ->
       aborting_d = true; clean_d = false; word_d = kNone }
  /* ... and what the source says. A VMM that has not registered (again) counts as dead. */
  :: atomic { word_d != kNone ->
       if
       :: rec_d != kOffered || owner_d || aborting_d  /* decided meanwhile */
       :: else ->
          if
          :: word_d == kHandedOver && known_d && armed_d && (vmm_d == kLoaded || (live_d && vmm_d == kStray)) ->
             live_d = true; owner_d = true; clean_d = (vmm_d == kLoaded)
          :: else -> aborting_d = true; clean_d = false
          fi
       fi;
       word_d = kNone }

  /* "Never". */
  :: atomic { aborting_d && known_d && Used(vmm_d) -> vmm_d = kEnded; known_d = false; armed_d = false }
  :: atomic { aborting_d && !(known_d && Used(vmm_d)) ->
       assert(!ran_d);
       assert(rec_d != kOwner || !Used(vmm_d));
       Write(rec_d, disk_d, sure_d, kNever);
       if
       :: sure_d -> aborting_d = false; live_d = false; owner_d = false
       :: else
       fi }
  :: atomic { rec_d == kNever && !aborting_d && known_d && Used(vmm_d) -> vmm_d = kEnded; known_d = false; armed_d = false }
  :: atomic { rec_d == kNever && !aborting_d && known_d && vmm_d == kWaits && armed_d -> armed_d = false }

  /* "Owner". */
#ifdef BUG_CONT_BEFORE_OWNER
  :: atomic { owner_d && !aborting_d && !told_d && vmm_d == kLoaded && rec_d == kOffered -> told_d = true }
  :: atomic { owner_d && !aborting_d && told_d && rec_d == kOffered -> Write(rec_d, disk_d, sure_d, kOwner) }
#endif
  /* Rule: a record that cannot be written is not tried until it can: the VMM is ended, so that the source may resume. */
  :: atomic { owner_d && !aborting_d && !told_d && !(rec_d == kOwner && sure_d) ->
       Write(rec_d, disk_d, sure_d, kOwner);
       if
       :: !sure_d -> owner_d = false; aborting_d = true; clean_d = false
       :: else
       fi }
  /* Its VMM is told to run, again where it has refused. Rule: one that is dead and has shown no RESUME has not run. */
  :: atomic { owner_d && !aborting_d && !told_d && rec_d == kOwner && sure_d && !(refused_d && confirmed_d) ->
       if
       :: Dead(vmm_d) && clean_d -> owner_d = false; aborting_d = true; clean_d = false
       :: else -> told_d = true
       fi;
       refused_d = false }
  :: atomic { told_d && (vmm_d == kLoaded || vmm_d == kStray) -> GuestRunsAtDestination(kRuns) }

  /* It answers `cont` with an error, and says why. Nothing is known of a `cont` that is not answered. */
#ifdef BUG_NEVER_WITHOUT_AN_ANSWER
  :: atomic { !calm && told_d && owner_d && clean_d && vmm_d == kLoaded && !refused_d -> refused_d = true }
#else
#ifdef BUG_NEVER_AFTER_A_RESUME
  :: atomic { !calm && told_d && owner_d && vmm_d == kLoaded -> told_d = false; refused_d = true }
#else
  :: atomic { !calm && told_d && owner_d && clean_d && vmm_d == kLoaded -> told_d = false; refused_d = true }
#endif
#endif
  /* Rule: the source has said that its VMM lives and is fenced; this one is ended, and only then looked for a RESUME. */
#ifdef BUG_NEVER_WITHOUT_THE_SOURCE
  :: atomic { refused_d && !confirmed_d -> confirmed_d = true; assert(!GoneAtSource) }
#endif
#ifdef BUG_NEVER_BEFORE_DEAD
  :: atomic { refused_d && confirmed_d && Used(vmm_d) ->
       refused_d = false; confirmed_d = false; owner_d = false; aborting_d = true; known_d = false }
#endif
  :: atomic { refused_d && confirmed_d && !Dead(vmm_d) -> vmm_d = kEnded; known_d = false; armed_d = false }
  :: atomic { refused_d && confirmed_d && Dead(vmm_d) ->
       refused_d = false; confirmed_d = false;
       if
#ifdef BUG_NEVER_AFTER_A_RESUME
       :: true -> owner_d = false; aborting_d = true; clean_d = false
#else
       :: clean_d -> owner_d = false; aborting_d = true; clean_d = false
       :: else -> told_d = true
#endif
       fi }

  /* Rule: a restarted daemon makes durable what it has read before it acts on it or answers from it. */
#ifdef BUG_TRUST_WHAT_IS_READ
  :: atomic { (rec_d == kOwner || rec_d == kNever || rec_d == kArrived || rec_d == kCommitted) && !owner_d && !aborting_d &&
              !sure_d -> sure_d = true }
#else
  :: atomic { (rec_d == kOwner || rec_d == kNever || rec_d == kArrived || rec_d == kCommitted) && !owner_d && !aborting_d &&
              !sure_d -> Write(rec_d, disk_d, sure_d, rec_d) }
#endif
  :: atomic { rec_d == kOwner && sure_d && !live_d && !aborting_d && known_d &&
#ifdef BUG_NOT_ARMED_IS_ALL_HERE
              true ->
#else
              vmm_d != kFresh ->  /* Rule: a VMM that is not armed counts only if it is the one that was */
#endif
       live_d = true; owner_d = true; told_d = true }

  /* The memory. */
  :: atomic { told_d && vmm_d == kRuns && armed_d && !all_here && held_s && AfterRecord -> all_here = true }
  :: atomic { told_d && vmm_d == kRuns && armed_d && all_here -> armed_d = false }
  :: atomic { !calm && told_d && vmm_d == kRuns && armed_d -> vmm_d = kOff; all_here = true; armed_d = false }
  :: atomic { rec_d == kOwner && told_d && known_d && !armed_d ->
#ifdef BUG_FORGET_ARRIVED
       rec_d = kNone; disk_d = kNone; live_d = false; owner_d = false; told_d = false }
#else
       Write(rec_d, disk_d, sure_d, kArrived) }
#endif
  :: atomic { rec_d == kArrived && !sure_d && owner_d -> Write(rec_d, disk_d, sure_d, kArrived) }
  od
}

#define OwnerGone  (rec_d == kOwner && !live_d && !aborting_d && (Dead(vmm_d) || vmm_d == kFresh))

/* Asks the source what its record says; tells it that the memory is here. */
active proctype DestinationAttendant() {
end:
  do
  :: atomic { call_ds == kNone && rec_d == kOffered && !owner_d && !aborting_d && word_d == kNone -> call_ds = kQuery }
  :: atomic { call_ds == kNone && rec_d == kArrived && sure_d -> call_ds = kTellArrived }
  :: atomic { call_ds == kNone && refused_d && !confirmed_d -> call_ds = kConfirm }
  :: atomic { call_ds == kConfirm && answer_ds != kNone ->
       confirmed_d = (refused_d && answer_ds == kFencedHere); EndCallOfDestination() }
  /* Rule: "owner", and its VMM is gone for certain: it may be what an earlier daemon failed to write, killed its VMM
     for, and told the source. */
#ifndef BUG_OWNER_IS_NOT_ASKED_ABOUT
  :: atomic { call_ds == kNone && OwnerGone -> call_ds = kQuery }
#endif
  :: atomic { call_ds == kQuery && answer_ds != kNone ->
       if
       :: rec_d == kOffered && !owner_d && !aborting_d && answer_ds == kHandedOver -> word_d = kHandedOver
       :: rec_d == kOffered && !owner_d && !aborting_d && (answer_ds == kGone || answer_ds == kRolledBack) -> word_d = kGone
       :: OwnerGone && answer_ds == kRolledBack -> aborting_d = true; clean_d = false
       :: else
       fi;
       EndCallOfDestination() }
  :: atomic { call_ds == kTellArrived && answer_ds != kNone ->
       if
#ifdef BUG_NO_RECORD_IS_NO_ANSWER
       :: answer_ds == kOk ->
#else
       :: answer_ds == kOk || answer_ds == kNoRecord ->  /* Rule: it has ended there, and been forgotten */
#endif
          Write(rec_d, disk_d, sure_d, kCommitted);
          live_d = false; owner_d = false; told_d = false
       :: else
       fi;
       EndCallOfDestination() }
  od
}

/* ======== None stuck. How a session may end: */

#define NeverAtDestination  ((rec_d == kNever || rec_d == kNone) && vmm_d != kRuns && !Used(vmm_d) && !armed_d)
/* the VM stayed at the source; */
#define StayedHere         (vmm_s == kRuns && (rec_s == kRolledBack || rec_s == kNone) && \
                            (NeverAtDestination || (rec_s == kNone && OwnerGone) || /* forgotten before it was asked about */ \
                             (rec_d == kOwner && live_d && Dead(vmm_d))))  /* taken back; the next daemon there asks */
/* it has left (from then on a death is none of the session's business); */
#define HasLeft            (GoneAtSource && (rec_s == kCommitted || rec_s == kNone) && \
                            (rec_d == kCommitted || rec_d == kNone))
/* or a VMM died by itself: the only one that could run it, */
#define LostAtSource       ((vmm_s == kDead || (vmm_s == kSpoilt && rec_s == kRolledBack)) && NeverAtDestination)
#define LostAtDestination  ((vmm_d == kDead || vmm_d == kFresh || (vmm_d == kEnded && !aborting_d)) && \
                            rec_d == kOwner && vmm_s != kRuns)
/* or that of the source and, while memory was still to come, the daemon that had it. */
#define MemoryLost         (vmm_s == kDead && !held_s && rec_d == kOwner && !all_here)

#define Ended  (StayedHere || HasLeft || LostAtSource || LostAtDestination || MemoryLost)

/* What must not be: calm, and again and again not ended. */
never {
before:
  do
  :: !calm
  :: calm -> break
  od;
after:
  do
  :: Ended
  :: !Ended -> goto accept_not_ended
  od;
accept_not_ended:
  if
  :: Ended -> goto after
  :: !Ended -> goto accept_not_ended
  fi
}
