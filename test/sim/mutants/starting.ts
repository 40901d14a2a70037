/** Mutants of what is on the disk, and of stopping and starting: R12 to R15. */
import { DESIGN, type Mutant, PRIOR_ART } from './mutant.ts';

const ATTACH = 'csrc/core/attach.cc';
const METADATA_WRITER = 'csrc/core/metadata_writer.cc';
const REPLAYED_MAPS = `for (const auto& map : attachment->maps) {
  if (map != nullptr) attachment->replayed_chunks += map->mark(range);
}`;

export const STARTING: readonly Mutant[] = [
  {
    name: 'attach-without-locks',
    rules: ['R12'],
    source: 'writes of a killed process were seen to land 8 s after it was reaped',
    about:
      'A daemon attaches while writes of its killed predecessor are still on their way to the disk.',
    symptom:
      'they land after the log was replayed: chunks differ without a mark, or old content comes back',
    edits: [
      {
        file: 'test/sim/native/engine.cc',
        find: 'machine->late.land_all(machine->random);',
        replace: '',
      },
    ],
  },
  {
    name: 'replay-skipped',
    rules: ['R13'],
    source: DESIGN,
    about: "The log's extents are not marked at attach.",
    symptom: 'after a crash chunks differ without a mark',
    edits: [
      {
        file: ATTACH,
        find: 'if (map != nullptr) attachment->replayed_chunks += map->mark(range);',
        replace: '',
      },
    ],
  },
  {
    name: 'replay-skips-slots-in-step',
    rules: ['R13', 'R8'],
    source: `${PRIOR_ART} (only some slots marked after a crash)`,
    about: 'Replay marks only for peers that were known to be apart.',
    symptom: 'after a crash while linked chunks differ without a mark',
    edits: [
      {
        file: ATTACH,
        find: REPLAYED_MAPS,
        replace: `for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
          if (attachment->maps[slot] == nullptr || sb.slots[slot].bitmap_generation == 0) continue;
          attachment->replayed_chunks += attachment->maps[slot]->mark(range);
        }`,
      },
    ],
  },
  {
    name: 'replay-marks-first-slot-only',
    rules: ['R13', 'R8'],
    source: `${PRIOR_ART} (only configured peers' slots marked after a crash)`,
    about: 'Replay marks for one peer, and not for a third node whose slot is not in use now.',
    symptom: 'the third node comes back and is not given what it missed',
    edits: [
      {
        file: ATTACH,
        find: REPLAYED_MAPS,
        replace: `for (const auto& map : attachment->maps) {
          if (map == nullptr) continue;
          attachment->replayed_chunks += map->mark(range);
          break;
        }`,
      },
    ],
  },
  {
    name: 'replay-not-durable',
    rules: ['R13'],
    source: DESIGN,
    about: 'The log is emptied before the marks of its replay are on the disk.',
    symptom: 'a second crash soon after the first loses the marks',
    edits: [
      {
        file: ATTACH,
        within: 'std::optional<MetadataError> attach_metadata(',
        find: 'if (auto error = write_stale_maps(io, *attachment)) return error;',
        replace: '',
      },
    ],
  },
  {
    name: 'replay-without-newest-block',
    rules: ['R13', 'R15'],
    source: `${PRIOR_ART} (VxVM, DRBD: an older log taken for the newest)`,
    about: 'Replay stops one block before the newest, as if that one were always torn.',
    symptom: 'after a crash chunks differ whose extents were made hot last',
    edits: [
      {
        file: 'csrc/core/log_replay.cc',
        within: 'LogReplay replay_log(',
        find: 'number <= newest',
        replace: 'number < newest',
      },
    ],
  },
  {
    name: 'role-change-leaves-bits-in-ram',
    rules: ['R13'],
    source: DESIGN,
    about: 'A role change or a clean stop empties the log without putting all bits on the disk.',
    symptom: 'marks are lost with the RAM',
    edits: [
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::write_all_maps(Done done)',
        find: 'add_stale(UINT32_MAX, &job.blocks);',
        replace: '',
      },
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::write_all_maps(Done done)',
        find: 'ok && stale_blocks() != 0',
        replace: 'false',
      },
    ],
  },
  {
    name: 'one-superblock-copy',
    rules: ['R14'],
    source: DESIGN,
    about: 'Metadata changes go to the first superblock copy only.',
    symptom: 'that copy is torn or rots: the node goes back in time, or forgets what it is',
    theme: 'rot',
    edits: [
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::commit_written(Io* io)',
        find: 'commit_copy_ == 0 && io->result == 0',
        replace: 'false',
      },
    ],
  },
  {
    name: 'superblock-without-fua',
    rules: ['R14', 'R7'],
    source: DESIGN,
    about:
      'Both superblock copies are written before any of them is durable, and count as durable then.',
    symptom:
      'a power cut tears both copies, or takes a generation back that was told to be durable',
    edits: [
      {
        file: METADATA_WRITER,
        within: 'void MetadataWriter::start_commit()',
        find: 'superblock_io_.flags = kIoFua;',
        replace: 'superblock_io_.flags = 0;',
      },
    ],
  },
  {
    name: 'newer-version-accepted',
    rules: ['R15'],
    source: `${PRIOR_ART} (an older program takes the metadata of a newer one for its own)`,
    about: 'A superblock of a newer format version is read as if it were of this one.',
    symptom: 'a volume that a newer program has written is attached',
    theme: 'rot',
    edits: [
      {
        file: 'csrc/core/superblock.cc',
        within: 'SuperblockParse parse_superblock(',
        find: 'image.version != kFormatVersion',
        replace: 'image.version < kFormatVersion',
      },
    ],
  },
  {
    name: 'bad-map-block-clean',
    rules: ['R15'],
    source: DESIGN,
    about: 'A map block that cannot be trusted counts as clean.',
    symptom: 'a map block rots: chunks differ without a mark',
    theme: 'rot',
    edits: [
      {
        file: ATTACH,
        within: 'std::optional<MetadataError> read_maps(',
        find: 'map->load_untrusted(at + index); ++untrusted;',
        replace: '++untrusted;',
      },
    ],
  },
  {
    name: 'map-checksum-ignored',
    rules: ['R15'],
    source: DESIGN,
    about: 'The checksum of a map block is not looked at.',
    symptom: 'a map block rots: chunks differ without a mark',
    theme: 'rot',
    edits: [
      {
        file: 'csrc/core/map_block.cc',
        find: 'header.crc == crc32c_without_field(block, offsetof(MapHeader, crc))',
        replace: 'true',
      },
    ],
  },
  {
    name: 'bad-log-taken-as-empty',
    rules: ['R15', 'R13'],
    source: `${PRIOR_ART} (DRBD: an unusable log; VxVM: a foreign log means full recovery)`,
    about: 'A log that cannot be used counts as one without hot extents.',
    symptom: 'a log block rots and the node crashes: chunks differ without a mark',
    theme: 'rot',
    edits: [
      {
        file: ATTACH,
        within: 'std::optional<MetadataError> attach_metadata(',
        find: 'attachment->maps[slot]->mark_all(); sb.slots[slot].flags |= kSlotAllDirty;',
        replace: '',
      },
    ],
  },
];
