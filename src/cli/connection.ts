/** What the commands ask of a broker. grpc-connection.ts answers over the network. Every method fails with a CliError. */
import type { Message } from './message.ts';
import type { Header, Start } from './parse.ts';

export interface PublishInput {
  readonly subject: string;
  readonly body: Uint8Array;
  readonly headers: readonly Header[];
  /** 0: never. */
  readonly expirationSeconds: number;
  readonly producer: { readonly id: string; readonly sequence: number } | null;
}

export interface SubjectInfo {
  readonly subject: string;
  /** Lowest id that may still be there. */
  readonly first: number;
  /** Up to here every id is a message or a void. */
  readonly settled: number;
  /** Last id given. */
  readonly head: number;
}

export interface NodeStatus {
  readonly [name: string]: string | number | boolean | null;
}

export interface Connection {
  /** Resolves with the id once the message is durable. */
  publish(input: PublishInput): Promise<number>;
  fetch(subject: string, id: number): Promise<Message>;
  /** Ends without an error at an interrupt. */
  subscribe(subject: string, start: Start): AsyncIterable<Message>;
  status(): Promise<NodeStatus>;
  /** Page by page, in the broker's order. */
  listSubjects(prefix: string): AsyncIterable<SubjectInfo>;
  subjectInfo(subject: string): Promise<SubjectInfo>;
  /** Gives up all ids below `first`. */
  trim(subject: string, first: number): Promise<SubjectInfo>;
  close(): void;
}
