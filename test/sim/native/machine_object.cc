#include "machine_object.h"

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <utility>

#include "addon/volume_object.h"
#include "addon/words.h"
#include "core/hex.h"
#include "inside.h"
#include "opening.h"
#include "process.h"
#include "stamp.h"

namespace tidemark::sim {
namespace {

using addon::Argument;
using addon::ArgumentReader;
using addon::kIntegerMax;
using addon::Word;

constexpr int64_t kNumberMax = static_cast<int64_t>(kIntegerMax);
constexpr int64_t kVolumeMax = int64_t{1} << 30;

constexpr Word<Op> kOpWords[] = {{Op::kRead, "read"},
                                 {Op::kWrite, "write"},
                                 {Op::kFlush, "flush"},
                                 {Op::kDiscard, "discard"},
                                 {Op::kWriteZeroes, "write-zeroes"}};
constexpr Word<CrashKind> kCrashWords[] = {{CrashKind::kProcess, "process"},
                                           {CrashKind::kPower, "power"}};
constexpr Word<RotKind> kRotWords[] = {
    {RotKind::kMap, "map"}, {RotKind::kLog, "log"}, {RotKind::kSuperblock, "superblock"}};
constexpr Word<bool> kMetadataWords[] = {{false, "internal"}, {true, "external"}};

uint64_t read_count(ArgumentReader& reader, const Argument& object, const char* name,
                    int64_t max = kNumberMax) {
  return static_cast<uint64_t>(reader.integer(reader.property(object, name), 0, max));
}

MachineOptions read_options(ArgumentReader& reader, const Argument& object) {
  MachineOptions options;
  options.name = reader.text(reader.property(object, "name"), 1, 63);
  options.seed = read_count(reader, object, "seed");
  options.geometry.volume_bytes = read_count(reader, object, "volumeBytes", kVolumeMax);
  options.geometry.chunk_bytes =
      static_cast<uint32_t>(read_count(reader, object, "chunkBytes", INT32_MAX));
  options.geometry.extent_bytes =
      static_cast<uint32_t>(read_count(reader, object, "extentBytes", INT32_MAX));
  options.geometry.log_extents =
      static_cast<uint32_t>(read_count(reader, object, "logExtents", INT32_MAX));
  options.block_bytes = static_cast<uint32_t>(read_count(reader, object, "blockBytes", INT32_MAX));
  options.external = reader.word(reader.property(object, "metadata"), kMetadataWords);
  options.volatile_cache = reader.boolean(reader.property(object, "volatileCache"));
  return options;
}

Napi::Value make_stamps(Napi::Env env, const std::vector<int64_t>& stamps) {
  Napi::Float64Array array = Napi::Float64Array::New(env, stamps.size());
  for (size_t i = 0; i < stamps.size(); ++i) array[i] = static_cast<double>(stamps[i]);
  return array;
}

// Of protocol A: what completed without waiting for the peer, and is not known to be there.
struct Unwaited {
  uint64_t writes = 0;
  uint64_t bytes = 0;
};

Unwaited unwaited_of(const TransferLog& log) {
  Unwaited sum;
  for (uint64_t sequence = log.base(); sequence < log.next_sequence(); ++sequence) {
    const TransferEntry* entry = log.find(sequence);
    if (entry->resync || entry->acknowledged || entry->owner != nullptr) continue;
    ++sum.writes;
    sum.bytes += entry->range.length;
  }
  return sum;
}

}  // namespace

void throw_error(Napi::Env env, const std::string& message) {
  Napi::Error::New(env, message).ThrowAsJavaScriptException();
}

Napi::Function MachineObject::define(Napi::Env env) {
  return DefineClass(env, "SimMachine",
                     {
                         InstanceMethod("nodeId", &MachineObject::node_id),
                         InstanceMethod("open", &MachineObject::open),
                         InstanceMethod("isOpen", &MachineObject::is_open),
                         InstanceMethod("ioCount", &MachineObject::io_count),
                         InstanceMethod("completeIo", &MachineObject::complete_io),
                         InstanceMethod("poll", &MachineObject::poll),
                         InstanceMethod("deliver", &MachineObject::deliver),
                         InstanceMethod("nextDeadlineUs", &MachineObject::next_deadline_us),
                         InstanceMethod("submit", &MachineObject::submit),
                         InstanceMethod("completions", &MachineObject::completions),
                         InstanceMethod("requestsOut", &MachineObject::requests_out),
                         InstanceMethod("setFaults", &MachineObject::set_faults),
                         InstanceMethod("crash", &MachineObject::crash),
                         InstanceMethod("takeUnfinished", &MachineObject::take_unfinished),
                         InstanceMethod("rot", &MachineObject::rot),
                         InstanceMethod("claimNewer", &MachineObject::claim_newer),
                         InstanceMethod("replaceDisk", &MachineObject::replace_disk),
                         InstanceMethod("readStamps", &MachineObject::read_stamps),
                         InstanceMethod("counters", &MachineObject::counters),
                         InstanceMethod("durableCurrent", &MachineObject::durable_current),
                         InstanceMethod("dump", &MachineObject::dump),
                         InstanceMethod("dispose", &MachineObject::dispose),
                     });
}

MachineObject::MachineObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<MachineObject>(info) {
  ArgumentReader reader(info, "SimMachine");
  MachineOptions options = read_options(reader, reader.argument(0, "options"));
  if (reader.failed()) return;
  try {
    machine_ = std::make_unique<Machine>(std::move(options));
  } catch (const std::exception& exception) {
    throw_error(info.Env(), exception.what());
  }
}

MachineObject* MachineObject::of(ArgumentReader& reader, const Argument& argument) {
  if (!reader.failed() && argument.value.IsObject()) {
    MachineObject* object = Unwrap(argument.value.As<Napi::Object>());
    if (object != nullptr && object->machine_ != nullptr) return object;
  }
  reader.type_failure(argument, "a SimMachine's native object");
  return nullptr;
}

bool MachineObject::good(Napi::Env env) {
  if (machine_->violation().empty()) return true;
  if (!env.IsExceptionPending()) throw_error(env, machine_->violation());
  return false;
}

Napi::Value MachineObject::node_id(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), hex(machine_->node_id()));
}

Napi::Value MachineObject::open(const Napi::CallbackInfo& info) {
  opening() = {machine_.get(), nullptr};
  const Napi::Value volume = addon::VolumeObject::open(info);
  const std::shared_ptr<SteppedSession> session = std::exchange(opening(), {}).session;
  if (session == nullptr) return volume;
  session_ = session;
  return volume;
}

Napi::Value MachineObject::is_open(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), machine_->process != nullptr);
}

Napi::Value MachineObject::io_count(const Napi::CallbackInfo& info) {
  const size_t count = machine_->process ? machine_->process->in_flight().size() : 0;
  return Napi::Number::New(info.Env(), static_cast<double>(count));
}

Napi::Value MachineObject::complete_io(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const double pick = info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : -1;
  if (!(pick >= 0 && pick < 1)) {
    throw_error(env, "completeIo: pick is out of range (0 <= pick < 1)");
    return env.Undefined();
  }
  const std::shared_ptr<Process> process = machine_->process;
  const std::string text = process ? process->complete_io(pick) : "";
  if (!good(env)) return env.Undefined();
  return Napi::String::New(env, text);
}

Napi::Value MachineObject::poll(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "poll");
  const auto now =
      static_cast<uint64_t>(reader.integer(reader.argument(0, "nowUs"), 0, kNumberMax));
  if (reader.failed()) return env.Undefined();
  const std::shared_ptr<Process> process = machine_->process;
  if (process) process->poll(now);
  good(env);
  return env.Undefined();
}

Napi::Value MachineObject::deliver(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  // The session outlives the process by what it still has to tell.
  const std::shared_ptr<SteppedSession> session = session_;
  const bool told = session != nullptr && session->deliver();
  if (env.IsExceptionPending() || !good(env)) return env.Undefined();
  if (!told && session != nullptr && machine_->process == nullptr && session_ == session) {
    session_.reset();
  }
  return Napi::Boolean::New(env, told);
}

Napi::Value MachineObject::next_deadline_us(const Napi::CallbackInfo& info) {
  const uint64_t at = machine_->process ? machine_->process->next_deadline_us() : UINT64_MAX;
  const double number =
      at == UINT64_MAX ? std::numeric_limits<double>::infinity() : static_cast<double>(at);
  return Napi::Number::New(info.Env(), number);
}

Napi::Value MachineObject::submit(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "submit");
  const Argument request = reader.argument(0, "request");
  Ask ask;
  const Argument op = reader.property(request, "op");
  const Argument offset = reader.property(request, "offset");
  const Argument length = reader.property(request, "length");
  const Argument fua = reader.property(request, "fua");
  const Argument no_unmap = reader.property(request, "noUnmap");
  const Argument stamp = reader.property(request, "stamp");
  ask.op = reader.word(op, kOpWords);
  ask.offset = static_cast<uint64_t>(reader.integer(offset, 0, kNumberMax));
  ask.length = static_cast<uint64_t>(reader.integer(length, 0, 32 << 20));
  ask.fua = !fua.absent() && reader.boolean(fua);
  ask.no_unmap = !no_unmap.absent() && reader.boolean(no_unmap);
  if (ask.op == Op::kWrite)
    ask.stamp = static_cast<uint64_t>(reader.integer(stamp, 1, static_cast<int64_t>(kStampMax)));
  if (!reader.failed() && ask.offset % kSectorBytes != 0)
    reader.range_failure(offset, "a multiple of 512");
  if (!reader.failed() && ask.length % kSectorBytes != 0)
    reader.range_failure(length, "a multiple of 512");
  if (reader.failed()) return env.Undefined();
  if (machine_->process == nullptr || !machine_->process->serving()) {
    throw_error(env, "submit: no frontend of machine " + machine_->options().name + " is running");
    return env.Undefined();
  }
  const uint64_t id = machine_->next_request++;
  const std::shared_ptr<Process> process = machine_->process;
  process->submit(ask, id);
  if (!good(env)) return env.Undefined();
  return Napi::Number::New(env, static_cast<double>(id));
}

Napi::Value MachineObject::completions(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array array = Napi::Array::New(env);
  std::vector<Answered> answered = std::exchange(machine_->answered, {});
  if (machine_->process != nullptr) answered = machine_->process->requests().take_answered();
  uint32_t count = 0;
  for (const Answered& answer : answered) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("id", Napi::Number::New(env, static_cast<double>(answer.id)));
    object.Set("result", Napi::Number::New(env, answer.result));
    const bool linked = answer.link_slot != kNoSlot;
    object.Set("linkSlot", Napi::Number::New(env, linked ? answer.link_slot : -1.0));
    if (answer.read) object.Set("stamps", make_stamps(env, answer.stamps));
    array.Set(count++, object);
  }
  return array;
}

Napi::Value MachineObject::requests_out(const Napi::CallbackInfo& info) {
  const uint64_t out = machine_->process ? machine_->process->requests().out() : 0;
  return Napi::Number::New(info.Env(), static_cast<double>(out));
}

Napi::Value MachineObject::set_faults(const Napi::CallbackInfo& info) {
  ArgumentReader reader(info, "setFaults");
  const Argument object = reader.argument(0, "faults");
  Faults faults;
  faults.write_error_one_in[0] = read_count(reader, object, "dataWriteErrorOneIn");
  faults.read_error_one_in[0] = read_count(reader, object, "dataReadErrorOneIn");
  faults.flush_error_one_in[0] = read_count(reader, object, "dataFlushErrorOneIn");
  faults.write_error_one_in[1] = read_count(reader, object, "metaWriteErrorOneIn");
  faults.read_error_one_in[1] = read_count(reader, object, "metaReadErrorOneIn");
  faults.flush_error_one_in[1] = read_count(reader, object, "metaFlushErrorOneIn");
  faults.no_buffer_one_in = read_count(reader, object, "noBufferOneIn");
  faults.hang = reader.boolean(reader.property(object, "hang"));
  faults.send_ring_bytes = read_count(reader, object, "sendRingBytes", kRingBytes);
  faults.receive_ring_bytes = read_count(reader, object, "receiveRingBytes", kRingBytes);
  if (!reader.failed()) machine_->faults = faults;
  return info.Env().Undefined();
}

Napi::Value MachineObject::unfinished(Napi::Env env) {
  Napi::Array array = Napi::Array::New(env);
  uint32_t count = 0;
  for (const Ask& ask : std::exchange(machine_->unfinished, {})) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("op", Napi::String::New(env, addon::text_of(ask.op, kOpWords)));
    object.Set("offset", Napi::Number::New(env, static_cast<double>(ask.offset)));
    object.Set("length", Napi::Number::New(env, static_cast<double>(ask.length)));
    if (ask.fua) object.Set("fua", Napi::Boolean::New(env, true));
    if (ask.no_unmap) object.Set("noUnmap", Napi::Boolean::New(env, true));
    if (ask.op == Op::kWrite)
      object.Set("stamp", Napi::Number::New(env, static_cast<double>(ask.stamp)));
    array.Set(count++, object);
  }
  return array;
}

void MachineObject::kill() {
  if (session_ != nullptr) session_->kill();
  session_.reset();
}

Napi::Value MachineObject::crash(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "crash");
  const CrashKind kind = reader.word(reader.argument(0, "kind"), kCrashWords);
  if (reader.failed()) return env.Undefined();
  kill();
  if (const std::shared_ptr<Process> process = std::exchange(machine_->process, nullptr))
    process->die(kind);
  if (kind == CrashKind::kPower) {
    machine_->late.cut(machine_->random);
    machine_->data().power_cut(machine_->random);
    if (machine_->options().external) machine_->meta().power_cut(machine_->random);
  }
  return unfinished(env);
}

Napi::Value MachineObject::take_unfinished(const Napi::CallbackInfo& info) {
  return unfinished(info.Env());
}

Napi::Value MachineObject::rot(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "rot");
  const RotKind kind = reader.word(reader.argument(0, "what"), kRotWords);
  if (reader.failed()) return env.Undefined();
  return Napi::String::New(env, machine_->rot(kind));
}

Napi::Value MachineObject::claim_newer(const Napi::CallbackInfo& info) {
  ArgumentReader reader(info, "claimNewer");
  const bool newer = reader.boolean(reader.argument(0, "newer"));
  if (!reader.failed()) machine_->claim_newer(newer);
  return info.Env().Undefined();
}

Napi::Value MachineObject::replace_disk(const Napi::CallbackInfo& info) {
  try {
    machine_->replace_disk();
  } catch (const std::exception& exception) {
    throw_error(info.Env(), exception.what());
  }
  return info.Env().Undefined();
}

Napi::Value MachineObject::read_stamps(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "readStamps");
  const auto bytes = static_cast<int64_t>(machine_->volume_bytes());
  const Argument at = reader.argument(0, "offset");
  const int64_t offset = reader.integer(at, 0, bytes);
  const int64_t length = reader.integer(reader.argument(1, "length"), 0, bytes - offset);
  const bool durable = reader.boolean(reader.argument(2, "durable"));
  if (!reader.failed() && (offset % kSectorBytes != 0 || length % kSectorBytes != 0))
    reader.range_failure(at, "offset and length in multiples of 512");
  if (reader.failed()) return env.Undefined();
  const Disk& disk = machine_->data();
  const PageTable& table = durable ? disk.durable() : disk.cached();
  const auto first = static_cast<uint64_t>(offset) / kSectorBytes;
  const uint64_t end = first + static_cast<uint64_t>(length) / kSectorBytes;
  Napi::Float64Array array = Napi::Float64Array::New(env, end - first);
  double* out = array.Data();
  int64_t stamps[kPageSectors];
  for (uint64_t sector = first; sector < end;) {
    const uint64_t page = sector / kPageSectors;
    table.at(page).stamps(page, stamps);
    do {
      *out++ = static_cast<double>(stamps[sector % kPageSectors]);
    } while (++sector < end && sector % kPageSectors != 0);
  }
  return array;
}

Napi::Value MachineObject::counters(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object object = Napi::Object::New(env);
  const auto set = [&](const char* name, uint64_t value) {
    object.Set(name, Napi::Number::New(env, static_cast<double>(value)));
  };
  const Process* process = machine_->process.get();
  const VolumeImpl* volume = process != nullptr ? process->volume() : nullptr;
  const std::vector<Io*> none;
  const std::vector<Io*>& out = process != nullptr ? process->in_flight() : none;
  set("ioOut", out.size());
  set("dataWritesOut", static_cast<uint64_t>(std::count_if(out.begin(), out.end(), [](Io* io) {
        return io->target == IoTarget::kData && io->kind != IoKind::kRead &&
               io->kind != IoKind::kFlush;
      })));
  set("linkBytesUnread", volume != nullptr ? volume->link.unread : 0);
  set("buffersOut", process != nullptr ? process->buffers().count() : 0);
  set("bufferBytesOut", process != nullptr ? process->buffers().bytes() : 0);
  set("sendRingUsed", process != nullptr ? process->send_used() : 0);
  set("transferWrites", volume != nullptr ? volume->transfer.count() : 0);
  const Unwaited unwaited = volume != nullptr ? unwaited_of(volume->transfer) : Unwaited{};
  set("windowWrites", unwaited.writes);
  set("windowBytes", unwaited.bytes);
  return object;
}

Napi::Value MachineObject::durable_current(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), hex(machine_->durable_current()));
}

Napi::Value MachineObject::dump(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), machine_->dump());
}

// The memory of its disks is the next seed's, now and not when the garbage is collected.
Napi::Value MachineObject::dispose(const Napi::CallbackInfo& info) {
  kill();
  if (machine_ != nullptr && machine_->process != nullptr)
    std::exchange(machine_->process, nullptr)->die(CrashKind::kPower);
  machine_.reset();
  return info.Env().Undefined();
}

}  // namespace tidemark::sim
