/** 'host:port' texts. */

import { isIP, isIPv6 } from 'node:net';
import { PORT_MAX, PORT_MIN } from './limits.ts';

export interface Address {
  host: string;
  port: number;
}

const HOST_NAME =
  /^(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$/;

/** Behind the value in a message. */
export const ADDRESS_EXPECTED = `is not host:port (port ${PORT_MIN}..${PORT_MAX})`;

function isHost(host: string): boolean {
  if (isIP(host) === 4) return true;
  // All digits and dots, and no IPv4 address: a mistyped one, not a name.
  return HOST_NAME.test(host) && !/^[\d.]+$/.test(host);
}

/** '10.0.0.1:7790', 'alpha.example.org:7790', '[::1]:7790'; null for anything else. */
export function parseAddress(value: unknown): Address | null {
  if (typeof value !== 'string') return null;
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(value);
  if (!match) return null;
  const port = Number(match[3]);
  if (port < PORT_MIN || port > PORT_MAX) return null;
  const host = match[1] ?? match[2]!;
  if (match[1] === undefined ? !isHost(host) : !isIPv6(host)) return null;
  return { host, port };
}

/** Never leaves this machine. Only literal addresses and 'localhost': what a name resolves to may change. */
export function isLoopback(host: string): boolean {
  const lower = host.toLowerCase();
  if (lower === 'localhost' || lower === '::1' || lower === '0:0:0:0:0:0:0:1') return true;
  return isIP(lower) === 4 && lower.startsWith('127.');
}

export function formatAddress(address: Address): string {
  return isIPv6(address.host)
    ? `[${address.host}]:${address.port}`
    : `${address.host}:${address.port}`;
}
