export const NODE_VERSION_MIN: string;
export const THREADPOOL_SIZE_DEFAULT: string;
export function isVersionAtLeast(version: string, minimum: string): boolean;
export function findNode(): string | null;
export function launchEnvironment(node: string): NodeJS.ProcessEnv;
export function isLaunched(): boolean;
export function launch(args: readonly string[]): void;
export function stopWithLauncher(): void;
