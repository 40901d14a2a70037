/** Two handshake machines that talk to each other without a socket, and the answers of two volumes behind them. */
import type { NativeHandshakeState } from '../../../lib/binding/native.ts';
import { NODE_CONSISTENT, SLOT_IN_USE } from '../../../lib/replication/flags.ts';
import {
  Handshake,
  type HandshakeAction,
  type HandshakeOptions,
  type HandshakeOutcome,
  type LocalState,
  type Refusal,
} from '../../../lib/replication/handshake.ts';
import type { HandshakeMessage, HelloMessage } from '../../../lib/replication/messages.ts';

export const ID_A = 'a'.repeat(32);
export const ID_B = 'b'.repeat(32);

export function nativeState(
  nodeId: string,
  changes: Partial<NativeHandshakeState> = {},
): NativeHandshakeState {
  return {
    serial: '0000000000000007',
    idle: true,
    role: 'secondary',
    disk: 'UpToDate',
    volumeBytes: 1 << 20,
    chunkBytes: 4096,
    nodeId,
    current: '00000000000000c1',
    bitmap: '0000000000000000',
    history: new Array<string>(8).fill('0000000000000000'),
    flags: NODE_CONSISTENT,
    slot: 0,
    slotFlags: SLOT_IN_USE,
    dirtyChunks: 0,
    ...changes,
  };
}

export interface Player {
  options: HandshakeOptions;
  state: LocalState;
  refusal: Refusal | null;
  prepare: { code: string; message: string } | null;
  /** Replaces a message before it goes out; null loses it. */
  tamper(message: HandshakeMessage): unknown;
  /** What happened, in order. */
  log: HandshakeAction[];
  outcome: HandshakeOutcome | null;
  started: boolean;
}

export function player(
  end: 'dialer' | 'listener',
  changes: Partial<HandshakeOptions> = {},
): Player {
  const dials = end === 'dialer';
  return {
    options: {
      end,
      volume: 'r0',
      node: dials ? 'alpha' : 'beta',
      peer: dials ? 'beta' : 'alpha',
      nodeId: dials ? ID_A : ID_B,
      secret: 'a shared secret',
      isLoopback: () => false,
      protocol: 'C',
      nonce: (dials ? '1' : '2').repeat(64),
      syncGeneration: (dials ? '5' : '6').repeat(16),
      ...changes,
    },
    state: {
      native: nativeState(dials ? ID_A : ID_B),
      discardMine: false,
      probe: false,
      otherIdentity: null,
    },
    refusal: null,
    prepare: null,
    tamper: (message) => message,
    log: [],
    outcome: null,
    started: false,
  };
}

/** Runs both until nothing happens any more. */
export function play(dialer: Player, listener: Player): void {
  const machines = new Map<Player, Handshake>([
    [dialer, new Handshake(dialer.options)],
    [listener, new Handshake(listener.options)],
  ]);
  const queue: Array<() => void> = [];
  const run = (who: Player, actions: HandshakeAction[]) => {
    const machine = machines.get(who)!;
    const other = who === dialer ? listener : dialer;
    for (const action of actions) {
      who.log.push(action);
      if (action.do === 'send') {
        const message = who.tamper(action.message);
        if (message === null) continue;
        const json = typeof message === 'string' ? message : JSON.stringify(message);
        queue.push(() => deliver(other, json));
      } else if (action.do === 'claim') {
        queue.push(() => run(who, machine.claimed(who.refusal, who.state.native.role)));
      } else if (action.do === 'state') {
        queue.push(() => run(who, machine.state(who.state)));
      } else if (action.do === 'prepare') {
        const failure = who.prepare;
        queue.push(() =>
          run(
            who,
            failure ? machine.prepareFailed(failure.code, failure.message) : machine.prepared(),
          ),
        );
      } else if (action.do === 'start') who.started = true;
      else who.outcome = action.outcome;
    }
  };
  let helloSeen = false;
  const deliver = (who: Player, json: string) => {
    const machine = machines.get(who)!;
    if (who === listener && !helloSeen) {
      helloSeen = true;
      run(who, machine.accept(JSON.parse(json) as HelloMessage));
    } else run(who, machine.message(json));
  };
  run(dialer, machines.get(dialer)!.start());
  for (let steps = 0; queue.length > 0; steps++) {
    if (steps > 200) throw new Error('the handshake does not end');
    queue.shift()!();
  }
}

export const sent = (who: Player) =>
  who.log.flatMap((action) => (action.do === 'send' ? [action.message] : []));
export const params = (who: Player) => {
  const action = who.log.find((each) => each.do === 'prepare');
  return action?.do === 'prepare' ? action.params : null;
};
