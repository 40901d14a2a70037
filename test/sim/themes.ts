/** The script of every theme: how a seed begins, what makes its situation common, and how it ends. */
import { NO_FAULTS } from './machine.ts';
import type { SimNode } from './node.ts';
import { Operator } from './operator.ts';
import { peace } from './peace.ts';
import type { Simulation } from './simulation.ts';
import type { ThemeName } from './theme_names.ts';
import { ThirdNode } from './third_node.ts';
import { Weather, type Weights } from './weather.ts';

const LINK_FAULTS: Weights = { reset: 3, fin: 2, 'lost-tail': 3, stall: 1, partition: 2 };
const CRASHES: Weights = { kill: 3, 'power-cut': 3, 'kill-both': 1, 'power-cut-both': 1 };
const MIXED: Weights = {
  ...LINK_FAULTS,
  ...CRASHES,
  'lost-dials': 1,
  stranger: 1,
  hang: 1,
  'slow-disk': 1,
  'data-errors': 1,
  'read-errors': 1,
  'flush-errors': 0.5,
  'meta-errors': 0.5,
  'no-buffers': 2,
  'clean-restart': 2,
  failover: 2,
  promote: 1,
  'force-promote': 0.3,
  demote: 1,
  disconnect: 1,
  'discard-mine': 0.3,
  invalidate: 1,
  rot: 0.5,
  mood: 3,
  'promote-both': 0.5,
  'changed-mind': 0.3,
  usurped: 1,
};

interface Theme {
  weather: Weights;
  /** Mean steps between two events. */
  everySteps: number;
}

const THEMES: Record<ThemeName, Theme> = {
  mixed: { weather: MIXED, everySteps: 150 },
  calm: { weather: { mood: 1, fin: 1, 'clean-restart': 1, failover: 1, kill: 1 }, everySteps: 800 },
  'log-thrash': {
    weather: { ...LINK_FAULTS, ...CRASHES, mood: 2, 'slow-disk': 1 },
    everySteps: 400,
  },
  'crash-in-resync': { weather: { ...CRASHES, reset: 2, 'lost-tail': 2 }, everySteps: 100 },
  failovers: {
    weather: {
      failover: 8,
      ...CRASHES,
      promote: 3,
      demote: 2,
      disconnect: 2,
      usurped: 5,
      'promote-both': 3,
    },
    everySteps: 150,
  },
  'split-brain': {
    weather: {
      partition: 4,
      promote: 4,
      'force-promote': 2,
      'discard-mine': 2,
      demote: 2,
      kill: 1,
      'changed-mind': 4,
      usurped: 2,
    },
    everySteps: 150,
  },
  stalls: {
    weather: {
      stall: 6,
      hang: 3,
      'slow-disk': 3,
      'lost-dials': 2,
      partition: 2,
      kill: 1,
      'broken-at-slow-disk': 5,
    },
    everySteps: 300,
  },
  'tiny-rings': { weather: { ...LINK_FAULTS, 'no-buffers': 4, kill: 1, mood: 2 }, everySteps: 250 },
  'flush-storm': {
    weather: { ...LINK_FAULTS, ...CRASHES, failover: 2, 'slow-disk': 3 },
    everySteps: 250,
  },
  zeroes: { weather: { ...LINK_FAULTS, ...CRASHES, mood: 2 }, everySteps: 300 },
  unaligned: { weather: { ...LINK_FAULTS, ...CRASHES, 'read-errors': 8 }, everySteps: 300 },
  'resync-under-writes': { weather: { reset: 2, 'lost-tail': 1, kill: 1 }, everySteps: 700 },
  'bad-disks': {
    weather: {
      'data-errors': 3,
      'read-errors': 2,
      'flush-errors': 2,
      'meta-errors': 2,
      'apart-with-bad-metadata': 2,
      hang: 1,
      kill: 1,
      reset: 1,
    },
    everySteps: 250,
  },
  'power-cuts': { weather: { 'power-cut': 4, 'power-cut-both': 4, reset: 1 }, everySteps: 200 },
  'replaced-disk': {
    weather: { 'replace-disk': 3, kill: 1, reset: 1, failover: 1 },
    everySteps: 500,
  },
  rot: { weather: { rot: 4, ...CRASHES }, everySteps: 250 },
  recoveries: { weather: { usurped: 4, kill: 2, 'changed-mind': 1 }, everySteps: 600 },
  'errors-in-resync': {
    weather: { 'data-errors': 4, 'lost-tail': 2, reset: 2, invalidate: 3, kill: 0.5, mood: 2 },
    everySteps: 200,
  },
  yielding: {
    weather: {
      yielded: 4,
      'stepped-down': 4,
      'stepped-apart': 3,
      'lost-tail': 1,
      kill: 1,
      usurped: 1,
    },
    everySteps: 400,
  },
  // ThirdNode has a weather of its own.
  'third-node': { weather: {}, everySteps: 0 },
  'unmet-pairs': { weather: {}, everySteps: 0 },
  'disk-policies': {
    weather: {
      'data-errors': 4,
      'read-errors': 4,
      'flush-errors': 1,
      'meta-errors': 1,
      reset: 2,
      'lost-tail': 1,
      kill: 1,
      'power-cut': 1,
      failover: 1,
      'replace-disk': 0.5,
      'lost-disk': 8,
    },
    everySteps: 200,
  },
  'fallen-primary': { weather: { fallen: 4, mood: 2, 'lost-tail': 1 }, everySteps: 250 },
  'start-stop': {
    weather: { 'clean-restart': 6, kill: 2, 'kill-both': 1, failover: 1 },
    everySteps: 120,
  },
};

export async function script(sim: Simulation): Promise<void> {
  const { nodes, plan, random } = sim;
  const operator = new Operator(sim);
  const weather = new Weather(sim, operator);
  const { sendRingBytes, receiveRingBytes } = plan;
  for (const node of nodes) {
    node.machine.faults = { ...NO_FAULTS, sendRingBytes, receiveRingBytes };
    node.start();
  }
  const first = random.pick(nodes);
  await sim.until(() => nodes.every((node) => node.state === 'running' || node.state === 'failed'));
  // Of two new copies, a person says which one counts.
  await operator.promote(first, true);
  if (plan.nodes > 2) return await new ThirdNode(sim, operator, weather).run(first);
  sim.working = true;
  // Most begin in step, some in the middle of the first resync.
  if (!random.oneIn(3)) await inStep(sim, first);
  const { weather: weights, everySteps } = THEMES[plan.theme];
  void weather.blow(weights, everySteps);
  void weather.keepUp();
  const end = sim.step + plan.steps;
  await sim.until(() => sim.step >= end);
  weather.end();
  await peace(sim, operator);
}

async function inStep(sim: Simulation, node: SimNode): Promise<void> {
  const end = sim.step + 8000;
  await sim.until(() => sim.model.view(node.index).inStep || sim.step > end);
}
