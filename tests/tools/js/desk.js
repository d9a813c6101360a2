// A client that knows docs/wire.md and docs/brokers.md and nothing else of hilgate: it listens and commands.
//
//   node desk.js CONFIG     CONFIG is JSON: {connection, receivers, commands, replies, reply_to}
//     connection   options of rhea's connect()
//     receivers    rhea receiver options, one a subscription
//     commands     rhea sender options
//     replies      rhea receiver options of the reply node
//     reply_to     its address; without one, the address that the broker gave the dynamic node
//
// stdin: one command a line, {"body": ..., "message_id": ..., ...more message fields}; "message_id" as {"uuid": HEX} or
// {"ulong": N} too. stdout: one line for everything that happens, {"event": ..., ...}.
'use strict';

const readline = require('readline');
const rhea = require('rhea');

const { message, types } = rhea;
const config = JSON.parse(process.argv[2]);
const container = rhea.create_container(config.connection.container_id ? { id: config.connection.container_id } : {});
const RECONNECT_MS = 300;

let commands = null;
let replyTo = null;
let again = null;
const unsent = [];

function say(event, fields) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

function plain(id) {
  return Buffer.isBuffer(id) ? { hex: id.toString('hex') } : id;
}

function bytesOf(body) {
  if (body && body.typecode === 0x75) return Buffer.concat([body.content].flat());
  return Buffer.isBuffer(body) ? body : Buffer.from(String(body));
}

function heard(context, replies) {
  const got = context.message;
  const body = bytesOf(got.body);
  say('message', {
    reply: replies,
    to: got.to,
    message_id: plain(got.message_id),
    correlation_id: plain(got.correlation_id),
    content_type: got.content_type,
    priority: got.priority,
    durable: got.durable,
    ttl: got.ttl,
    properties: got.application_properties,
    body: body.toString(got.content_type === 'application/vnd.tcpdump.pcap' ? 'hex' : 'utf8'),
  });
}

function send({ body, message_id: id, application_properties: properties, no_reply_to: anonymous, ...fields }) {
  const typed = id && id.uuid ? types.wrap_uuid(Buffer.from(id.uuid, 'hex')) : id && id.ulong ? types.wrap_ulong(id.ulong) : id;
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  commands.send({
    message_id: typed,
    reply_to: anonymous ? undefined : replyTo,
    content_type: 'application/json',
    creation_time: new Date(),
    durable: true,
    application_properties: properties,
    body: message.data_section(Buffer.from(text)),
    ...fields,
  });
}

function flush() {
  while (commands && commands.sendable() && replyTo && unsent.length) send(unsent.shift());
}

function attach(connection) {
  const replies = connection.open_receiver(config.replies);
  replies.on('message', (context) => heard(context, true));
  replies.on('receiver_open', () => {
    replyTo = config.reply_to || replies.source.address;
    flush();
  });
  let open = 0;
  for (const options of config.receivers) {
    const receiver = connection.open_receiver({ credit_window: 500, ...options });
    receiver.on('message', (context) => heard(context, false));
    receiver.on('receiver_open', () => { open += 1; if (open === config.receivers.length) say('ready', { reply_to: replyTo }); });
  }
  commands = connection.open_sender(config.commands);
  commands.on('sendable', flush);
  for (const outcome of ['accepted', 'released', 'modified']) commands.on(outcome, () => say('outcome', { outcome }));
  commands.on('rejected', (context) => say('outcome', { outcome: 'rejected', error: context.delivery.remote_state.error }));
}

function connect() {
  container.connect({ ...config.connection, reconnect: false });
}

container.on('connection_open', (context) => attach(context.connection));
// A broker that says goodbye gives 'connection_close', one that just goes 'disconnected'.
for (const end of ['connection_close', 'disconnected']) {
  container.on(end, () => {
    commands = null;
    replyTo = null;
    if (again) return;
    say('disconnected', {});
    again = setTimeout(() => { again = null; connect(); }, RECONNECT_MS);
  });
}
for (const what of ['connection_error', 'session_error', 'sender_error', 'receiver_error', 'error']) {
  container.on(what, (context) => {
    const error = context.error || context[what.split('_')[0]].error || context;
    say('error', { what, condition: error.condition, description: error.description || error.message });
  });
}
connect();

readline.createInterface({ input: process.stdin })
  .on('line', (line) => { unsent.push(JSON.parse(line)); flush(); })
  .on('close', () => process.exit(0));
