import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { type DescriptorProto, type FileDescriptorProto, FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import type { PackageDefinition } from '@grpc/proto-loader';
import { assert } from '../base/assert.ts';

/** A message and its full name, with the leading dot that references have. */
interface Named {
  readonly name: string;
  readonly message: DescriptorProto;
}

/**
 * The files of a package definition as protoc would describe them. proto-loader makes its descriptors with protobufjs 7, which leaves out
 * imports, writes references relative to where they stand, and names the entry message of a map `Statuses` instead of `StatusesEntry`. Clients
 * that check descriptors (grpcurl, everything in Go) refuse such a file as a whole: `Health/Check` cannot be called because of the map in
 * `Health/List`.
 */
export function linkedFiles(definition: PackageDefinition): Buffer[] {
  const encoded = Object.values(definition).flatMap(({ fileDescriptorProtos: files }) =>
    Array.isArray(files) ? (files as Buffer[]) : [],
  );
  // Every definition has all files.
  const files = [...new Set(encoded)].map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
  for (const { message } of files.flatMap(messagesOf)) nameMapEntries(message);
  const fileOf = new Map(files.flatMap((file) => typesOf(file).map((type) => [type, file.name] as const)));
  for (const file of files) {
    const imports = new Set<string>();
    for (const { name, message } of messagesOf(file)) {
      for (const field of message.field) {
        if (field.typeName === '') continue;
        field.typeName = resolve(field.typeName, name, fileOf);
        imports.add(fileOf.get(field.typeName) as string);
      }
    }
    imports.delete(file.name);
    file.dependency = [...imports].sort();
  }
  return files.map((file) => Buffer.from(toBinary(FileDescriptorProtoSchema, file)));
}

function messagesOf({ package: scope, messageType }: FileDescriptorProto): Named[] {
  return messageType.flatMap((message) => withNested(message, `.${scope}`));
}

function withNested(message: DescriptorProto, scope: string): Named[] {
  const name = `${scope}.${message.name}`;
  return [{ name, message }, ...message.nestedType.flatMap((nested) => withNested(nested, name))];
}

function typesOf(file: FileDescriptorProto): string[] {
  const nested = messagesOf(file).flatMap(({ name, message }) => [
    name,
    ...message.enumType.map((one) => `${name}.${one.name}`),
  ]);
  return [...nested, ...file.enumType.map(({ name }) => `.${file.package}.${name}`)];
}

/** Looks from the innermost scope outwards, as protoc does. */
function resolve(reference: string, scope: string, types: ReadonlyMap<string, string>): string {
  if (reference.startsWith('.')) return reference;
  for (let inside = scope; ; inside = inside.slice(0, inside.lastIndexOf('.'))) {
    if (types.has(`${inside}.${reference}`)) return `${inside}.${reference}`;
    assert(inside !== '', () => `no type ${reference} where ${scope} refers to it`);
  }
}

function nameMapEntries(message: DescriptorProto): void {
  for (const entry of message.nestedType) {
    if (entry.options?.mapEntry !== true) continue;
    const field = message.field.find(({ typeName }) => typeName === entry.name);
    assert(field !== undefined, () => `no field is the map of ${entry.name}`);
    entry.name = mapEntryName(field.name);
    field.typeName = entry.name;
  }
}

/** As protoc makes it: my_map -> MyMapEntry. */
function mapEntryName(field: string): string {
  return `${field.replace(/(?:^|_)(.)/g, (_, letter: string) => letter.toUpperCase())}Entry`;
}
