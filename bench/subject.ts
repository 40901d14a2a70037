/** What is measured: something that serves a device, ours or a peer of it. */

import type { Place } from './place.ts';

export interface Subject {
  /** In results and targets. */
  readonly id: string;
  /** For people. */
  readonly title: string;
  /** fio uses so much of the device. */
  readonly bytes: number;
  /** @throws when it cannot be had on this machine, or does not start. */
  start(place: Place): Promise<void>;
  /** Also after a start that failed half way. */
  stop(): Promise<void>;
  /** fio's options that name the device. */
  fio(): string[];
  /** Whose processor time counts; null: the whole machine's. */
  pids(): number[] | null;
  /** Its threads last as long as it does. What others switched went with their threads, and is not told. */
  readonly threadsLast?: boolean;
  /** Nanoseconds that the threads which serve, of all its nodes, have run so far; of subjects whose threads last. */
  threadNs?(): number;
  /** How its thread has worked so far; of subjects that count it; undefined: this one does not. */
  worked?(): Promise<Worked | undefined>;
}

/** Counts since the start, of the node that serves the device. */
export interface Worked {
  requests: number;
  /** So often it took requests, one or many. */
  request_batches: number;
  wakeups: number;
  link_sends: number;
}

export interface Progress {
  /** The link is up and nothing is left to copy. */
  done: boolean;
  /** A copy is under way. */
  copying: boolean;
  dirty_bytes: number;
}

/** A pair that can be taken apart and brought together. */
export interface ResyncSubject extends Subject {
  disconnect(): Promise<void>;
  connect(): Promise<void>;
  progress(): Promise<Progress>;
  /** Writes of the application since the start. */
  writes(): Promise<number>;
}

export function canResync(subject: Subject): subject is ResyncSubject {
  return 'progress' in subject;
}

/** A subject that carries bytes and serves no device. */
export interface CarrierSubject extends Subject {
  /** Bytes a second. */
  carry(seconds: number): Promise<number>;
}

export function canCarry(subject: Subject): subject is CarrierSubject {
  return 'carry' in subject;
}
