// node-opcua's client behind a line protocol: orders on stdin, what happens on stdout, JSON lines.
//
//   node opcua_client.js CONFIG     CONFIG is JSON: {url, pki, cert, key, uri, policy, user, password}
//     url        of the server
//     pki        folder for certificates; those in pki/trusted/certs are trusted
//     cert, key  the client's certificate and key, PEM
//     uri        the client's application URI, as in its certificate
//     policy     "None", or a policy that is used with SignAndEncrypt
//
// Orders: {"id": n, "do": "browse" | "read" | "write" | "monitor" | "events" | "call" | "acknowledge" | "history", ...}, each answered by
// {"event": "done", "id": n, "result": ...}; {"event": "change"} and {"event": "alarm"} come by themselves. Nodes are "nsu=URI;s=..." .
'use strict';

for (const word of ['log', 'info', 'warn']) console[word] = console.error; // standard output is ours

const readline = require('readline');
const {
  OPCUAClient, MessageSecurityMode, SecurityPolicy, UserTokenType, AttributeIds, TimestampsToReturn, ClientMonitoredItem,
  constructEventFilter, ofType, acknowledgeCondition,
} = require('node-opcua-client');
const { Variant, DataType } = require('node-opcua-variant');
const { OPCUACertificateManager } = require('node-opcua-certificate-manager');
const { resolveNodeId } = require('node-opcua-nodeid');

const config = JSON.parse(process.argv[2]);
const FIELDS = [
  'EventId', 'EventType', 'SourceName', 'Message', 'Severity', 'ConditionId', 'ConditionName', 'ActiveState.Id', 'AckedState.Id', 'Retain',
];
let namespaces = [];

function say(event, fields) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

function node(text) {
  const parts = /^nsu=([^;]+);(.*)$/.exec(text);
  if (!parts) return resolveNodeId(text);
  const index = namespaces.indexOf(parts[1]);
  if (index < 0) throw new Error(`the server has no namespace ${parts[1]}`);
  return resolveNodeId(`ns=${index};${parts[2]}`);
}

function plain(value) {
  if (value && ArrayBuffer.isView(value) && !Buffer.isBuffer(value)) return Array.from(value);
  if (Buffer.isBuffer(value)) return value.toString('hex');
  if (value && value.text !== undefined) return value.text;
  return value;
}

function shown(data) {
  return {
    value: plain(data.value ? data.value.value : null), type: data.value ? DataType[data.value.dataType] : null, status: data.statusCode.name,
    source: data.sourceTimestamp ? data.sourceTimestamp.toISOString() : null,
  };
}

async function browse(session, text) {
  const result = await session.browse({ nodeId: node(text), browseDirection: 0, referenceTypeId: 'HierarchicalReferences', includeSubtypes: true, resultMask: 63 });
  return result.references.map((one) => one.browseName.name);
}

async function write(session, order) {
  const value = new Variant({ dataType: DataType[order.type], value: order.value });
  const status = await session.write({ nodeId: node(order.node), attributeId: AttributeIds.Value, value: { value } });
  return status.name;
}

async function monitor(subscription, order) {
  const filter = order.deadband && { typeName: 'DataChangeFilter', trigger: 1, deadbandType: 1, deadbandValue: order.deadband };
  const { DataChangeFilter } = require('node-opcua-client');
  const item = ClientMonitoredItem.create(
    subscription, { nodeId: node(order.node), attributeId: AttributeIds.Value },
    { samplingInterval: order.sampling, queueSize: 100, discardOldest: true, filter: filter ? new DataChangeFilter(filter) : null }, TimestampsToReturn.Both,
  );
  item.on('changed', (data) => say('change', { node: order.node, ...shown(data) }));
  await new Promise((resolve, reject) => {
    item.once('initialized', resolve);
    item.once('err', (message) => reject(new Error(message)));
  });
  return null;
}

const seen = new Map();

async function events(subscription, order) {
  const filter = constructEventFilter(FIELDS, order.type ? ofType(order.type) : undefined);
  const item = ClientMonitoredItem.create(
    subscription, { nodeId: node(order.node), attributeId: AttributeIds.EventNotifier }, { filter, queueSize: 100, discardOldest: true },
  );
  item.on('changed', (values) => {
    const fields = Object.fromEntries(FIELDS.map((name, at) => [name, plain(values[at].value)]));
    const eventId = fields.EventId;
    if (values[0].value) seen.set(eventId, { condition: values[5].value, event: values[0].value });
    say('alarm', { ...fields, ConditionId: String(fields.ConditionId), EventType: String(fields.EventType) });
  });
  await new Promise((resolve, reject) => {
    item.once('initialized', resolve);
    item.once('err', (message) => reject(new Error(message)));
  });
  return null;
}

async function call(session, order) {
  const inputArguments = order.args.map(([type, value]) => new Variant({ dataType: DataType[type], value }));
  const result = await session.call({ objectId: node(order.object), methodId: node(order.method), inputArguments });
  return { status: result.statusCode.name, outputs: (result.outputArguments || []).map((one) => plain(one.value)) };
}

async function history(session, order) {
  const result = await session.readHistoryValue({ nodeId: node(order.node) }, new Date(order.start), new Date(order.end), { numValuesPerNode: 100 });
  const one = Array.isArray(result) ? result[0] : result;
  return (one.historyData.dataValues || []).map(shown);
}

async function acknowledge(session, order) {
  const { condition, event } = seen.get(order.event_id);
  const status = await acknowledgeCondition(session, condition, event, order.comment);
  return status.name;
}

async function main() {
  const certificates = new OPCUACertificateManager({ rootFolder: config.pki, automaticallyAcceptUnknownCertificate: false });
  await certificates.initialize();
  const secured = config.policy !== 'None';
  const client = OPCUAClient.create({
    applicationName: 'client', applicationUri: config.uri, clientCertificateManager: certificates, certificateFile: config.cert,
    privateKeyFile: config.key, securityPolicy: SecurityPolicy[config.policy],
    securityMode: secured ? MessageSecurityMode.SignAndEncrypt : MessageSecurityMode.None, endpointMustExist: true,
    connectionStrategy: { maxRetry: 2, initialDelay: 200 }, requestedSessionTimeout: 60000, keepSessionAlive: true,
  });
  await client.connect(config.url);
  const session = await client.createSession(
    config.user ? { type: UserTokenType.UserName, userName: config.user, password: config.password } : { type: UserTokenType.Anonymous },
  );
  namespaces = await session.readNamespaceArray();
  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 50, requestedLifetimeCount: 1000, requestedMaxKeepAliveCount: 10, publishingEnabled: true,
  });
  const orders = {
    browse: (order) => browse(session, order.node),
    read: async (order) => shown(await session.read({ nodeId: node(order.node), attributeId: AttributeIds[order.attribute || 'Value'] })),
    write: (order) => write(session, order),
    monitor: (order) => monitor(subscription, order),
    events: (order) => events(subscription, order),
    call: (order) => call(session, order),
    history: (order) => history(session, order),
    acknowledge: (order) => acknowledge(session, order),
  };
  say('ready', { namespaces });
  readline.createInterface({ input: process.stdin }).on('line', async (line) => {
    const order = JSON.parse(line);
    try {
      say('done', { id: order.id, result: await orders[order.do](order) });
    } catch (error) {
      say('done', { id: order.id, error: String(error.stack) });
    }
  }).on('close', async () => { await session.close(true); await client.disconnect(); process.exit(0); });
}

main().catch((error) => { say('fault', { error: String(error.stack) }); process.exit(1); });
