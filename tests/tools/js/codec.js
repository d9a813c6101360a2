// rhea's AMQP message codec behind a line protocol: one JSON request a line on stdin, one answer a line on stdout.
//
//   {"decode": HEX}      -> the message's sections, application properties and ids with their AMQP types
//   {"encode": MESSAGE}  -> {"data": HEX}; a value is {"t": AMQP type, "v": value}, binary and uuid as hex
'use strict';

const readline = require('readline');
const rhea = require('rhea');

const { message, types } = rhea;
const BINARY = new Set(['uuid', 'binary']);
// rhea names types by their encoding; these are the names of the standard (part 1, section 1.6).
const STANDARD_NAMES = {
  Vbin8: 'binary', Vbin32: 'binary', Str8: 'string', Str32: 'string', Sym8: 'symbol', Sym32: 'symbol',
  SmallUint: 'uint', Uint0: 'uint', SmallUlong: 'ulong', Ulong0: 'ulong', SmallInt: 'int', SmallLong: 'long',
  True: 'boolean', False: 'boolean',
};

function typed(item) {
  const name = STANDARD_NAMES[item.type.name] || item.type.name.toLowerCase();
  const value = item.value;
  if (BINARY.has(name)) return { t: name, v: Buffer.from(value).toString('hex') };
  if (value instanceof Date) return { t: name, v: String(value.getTime()) };
  // A 64-bit number beyond 2^53 is given as its eight bytes.
  if (Buffer.isBuffer(value)) return { t: name, v: (name === 'ulong' ? value.readBigUInt64BE() : value.readBigInt64BE()).toString() };
  if (typeof value === 'number' || typeof value === 'bigint') return { t: name, v: String(value) };
  return { t: name, v: value };
}

function wrap({ t, v }) {
  if (BINARY.has(t)) return types[`wrap_${t}`](Buffer.from(v, 'hex'));
  if (t === 'ulong' || t === 'long') {
    const bytes = Buffer.alloc(8);
    if (t === 'ulong') bytes.writeBigUInt64BE(BigInt(v)); else bytes.writeBigInt64BE(BigInt(v));
    return types[`wrap_${t}`](bytes);
  }
  return types[`wrap_${t}`](t === 'string' || t === 'symbol' || t === 'boolean' ? v : Number(v));
}

// The keys of a map section with their typed values, which message.decode() would unwrap.
function typedMap(section) {
  const map = {};
  for (let i = 0; i + 1 < section.value.length; i += 2) map[section.value[i].value] = typed(section.value[i + 1]);
  return map;
}

function decode(data) {
  const answer = { application_properties: {}, message_annotations: {} };
  const reader = new types.Reader(data);
  while (reader.remaining()) {
    const section = reader.read();
    switch (Number(section.descriptor.value)) {
      case 0x72: answer.message_annotations = typedMap(section); break;
      case 0x73:
        answer.ids = [0, 5].map((index) => section.value[index] && section.value[index].value !== null ? typed(section.value[index]) : null);
        break;
      case 0x74: answer.application_properties = typedMap(section); break;
      case 0x75: answer.body = { section: 'data', data: Buffer.from(section.value).toString('hex') }; break;
      case 0x77: answer.body = { section: 'value', value: typed(section) }; break;
    }
  }
  const whole = message.decode(data);
  for (const name of ['durable', 'priority', 'ttl', 'delivery_count', 'to', 'subject', 'reply_to', 'content_type']) {
    answer[name] = whole[name] === undefined ? null : whole[name];
  }
  answer.user_id = whole.user_id ? Buffer.from(whole.user_id).toString('hex') : null;
  for (const name of ['creation_time', 'absolute_expiry_time']) {
    answer[name] = whole[name] === undefined ? null : Number(whole[name]);
  }
  return answer;
}

function encode(asked) {
  const made = { ...asked };
  for (const name of ['message_id', 'correlation_id']) if (made[name]) made[name] = wrap(made[name]);
  if (made.user_id) made.user_id = Buffer.from(made.user_id, 'hex');
  const properties = made.application_properties || {};
  made.application_properties = Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, wrap(value)]));
  made.body = made.body.section === 'data' ? message.data_section(Buffer.from(made.body.data, 'hex')) : wrap(made.body.value);
  return { data: message.encode(made).toString('hex') };
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const request = JSON.parse(line);
  const answer = request.decode === undefined ? encode(request.encode) : decode(Buffer.from(request.decode, 'hex'));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
