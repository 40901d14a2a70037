/** The package's public face: what a config script imports. */

export * from './config/public.ts';
