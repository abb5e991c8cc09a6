/** Every attack, in the order in which the campaign takes them. */
import { ADMIN } from './admin.ts';
import type { Attack } from './attacker.ts';
import { BODIES } from './bodies.ts';
import { CONTROL } from './control.ts';
import { FLOODS } from './floods.ts';
import { HEADERS } from './headers.ts';
import { RESETS } from './resets.ts';
import { SLOW } from './slow.ts';

export const ATTACKS: readonly Attack[] = [...RESETS, ...HEADERS, ...CONTROL, ...FLOODS, ...SLOW, ...BODIES, ...ADMIN];
