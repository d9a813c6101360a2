// node-opcua's server with a small plant, behind a line protocol: orders on stdin, what happens on stdout, JSON lines.
//
//   node opcua_server.js CONFIG     CONFIG is JSON: {port, pki, cert, key, policies, user, password}
//     port       of 127.0.0.1
//     pki        folder for certificates; those in pki/trusted/certs are trusted
//     cert, key  the server's certificate and key, PEM
//     policies   names such as "None" and "Basic256Sha256" (SignAndEncrypt, but of None)
//     user       the name that may write; without it anonymous may
//     limits     {maxNodesPerRead, ...} to announce
//
// Orders: {"id": n, "do": "set", "values": {name: value}, "status": name}, {"do": "get", "name"}.
// Each is answered by {"event": "done", "id": n, "result": ...}.
'use strict';

for (const word of ['log', 'info', 'warn']) console[word] = console.error; // standard output is ours

const readline = require('readline');
const { OPCUAServer } = require('node-opcua-server');
const { Variant, DataType, VariantArrayType } = require('node-opcua-variant');
const { OPCUACertificateManager } = require('node-opcua-certificate-manager');
const { MessageSecurityMode, SecurityPolicy } = require('node-opcua-client');
const { StatusCodes } = require('node-opcua-status-code');
const { standardUnits } = require('node-opcua-data-access');
const { nodesets } = require('node-opcua-nodesets');

const config = JSON.parse(process.argv[2]);
const URI = 'urn:plant.example:tanks';

function say(event, fields) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

function build(server) {
  const space = server.engine.addressSpace;
  const own = space.registerNamespace(URI);
  const plant = own.addFolder('ObjectsFolder', { browseName: 'Plant', nodeId: 's=Plant' });
  space.installAlarmsAndConditionsService();
  const tank = own.addObject({ organizedBy: plant, browseName: 'Tank', nodeId: 's=Plant.Tank', eventSourceOf: space.rootFolder.objects.server });
  const nodes = {};
  function add(name, dataType, value, more) {
    nodes[name] = own.addVariable({
      componentOf: tank, browseName: name, nodeId: `s=Plant.Tank.${name}`, dataType, minimumSamplingInterval: 10,
      value: { dataType, ...(Array.isArray(value) ? { arrayType: VariantArrayType.Array } : {}), value }, ...more,
    });
    return nodes[name];
  }
  function analog(name, value, low, high, unit) {
    nodes[name] = own.addAnalogDataItem({
      componentOf: tank, browseName: name, nodeId: `s=Plant.Tank.${name}`, dataType: 'Double', minimumSamplingInterval: 10,
      engineeringUnitsRange: { low, high }, engineeringUnits: unit, value: { dataType: 'Double', value },
      description: `${name} of the tank`,
    });
    return nodes[name];
  }
  const level = analog('Level', 1.5, 0, 4, standardUnits.metre);
  analog('Pressure', 101.5, 0, 600, standardUnits.kilopascal);
  add('Count', DataType.UInt64, 7);
  add('Speed', DataType.Int16, 1200);
  add('Running', DataType.Boolean, true);
  add('Name', DataType.String, 'tank 7');
  add('Label', DataType.LocalizedText, { locale: 'en', text: 'Tank seven' });
  add('Temperatures', DataType.Double, [20.5, 21.5, 22.5], { valueRank: 1 });
  add('Guid', DataType.Guid, '72962B91-FA75-4AE6-8D28-B404DC7DAF63');
  add('Raw', DataType.ByteString, Buffer.from('beef', 'hex'));
  add('Since', DataType.DateTime, new Date(Date.UTC(2024, 0, 2, 3, 4, 5, 678)));
  add('Secret', DataType.Double, 1, { accessLevel: 'CurrentRead', userAccessLevel: 'CurrentRead' });
  nodes.Mode = own.addMultiStateDiscrete({
    componentOf: tank, browseName: 'Mode', nodeId: 's=Plant.Tank.Mode', enumStrings: ['Stopped', 'Manual', 'Auto'], value: 1,
  });
  const phase = own.addEnumerationType({ browseName: 'Phase', enumeration: [{ displayName: 'Idle', value: 0 }, { displayName: 'Filling', value: 10 }] });
  nodes.Phase = own.addVariable({
    componentOf: tank, browseName: 'Phase', nodeId: 's=Plant.Tank.Phase', dataType: phase.nodeId, minimumSamplingInterval: 10,
    value: { dataType: DataType.Int32, value: 10 },
  });
  // The range structure stands for structures: all servers have its type.
  nodes.Limits = own.addVariable({
    componentOf: tank, browseName: 'Limits', nodeId: 's=Plant.Tank.Limits', dataType: 'Range', minimumSamplingInterval: 10,
    value: { dataType: DataType.ExtensionObject, value: space.constructExtensionObject(space.findDataType('Range').nodeId, { low: 0.5, high: 3.5 }) },
  });
  const setpoint = add('Setpoint', DataType.Double, 2, { historizing: true });
  space.installHistoricalDataNode(setpoint, { maxOnlineValues: 1000 });
  const mix = own.addMethod(tank, {
    browseName: 'Mix', nodeId: 's=Plant.Tank.Mix',
    inputArguments: [
      { name: 'speed', dataType: DataType.Double, description: { text: 'rpm' } },
      { name: 'times', dataType: DataType.UInt32, description: { text: '' } },
    ],
    outputArguments: [{ name: 'total', dataType: DataType.Double, description: { text: '' } }],
  });
  mix.bindMethod((inputs, _context, done) => {
    const [speed, times] = inputs.map((one) => one.value);
    if (times === 0) { done(null, { statusCode: StatusCodes.BadOutOfRange }); return; }
    done(null, { statusCode: StatusCodes.Good, outputArguments: [new Variant({ dataType: DataType.Double, value: speed * times })] });
  });
  const alarm = own.instantiateExclusiveLimitAlarm('ExclusiveLimitAlarmType', {
    browseName: 'LevelAlarm', conditionName: 'LevelAlarm', conditionSource: tank, inputNode: level, componentOf: tank,
    nodeId: 's=Plant.Tank.LevelAlarm', optionals: ['ConfirmedState', 'Confirm'],
    lowLowLimit: 0.2, lowLimit: 0.5, highLimit: 3.0, highHighLimit: 3.8,
  });
  // A wide folder with 100 values and a loop: what a browser has to bear.
  const wide = own.addFolder(plant, { browseName: 'Wide', nodeId: 's=Plant.Wide' });
  for (let n = 0; n < 100; n++) {
    nodes[`w${n}`] = own.addVariable({
      organizedBy: wide, browseName: `Value ${n}`, nodeId: `s=Plant.Wide.${n}`, dataType: 'Double', minimumSamplingInterval: 10,
      value: { dataType: 'Double', value: n },
    });
  }
  wide.addReference({ referenceType: 'Organizes', nodeId: plant });
  return { nodes, alarm };
}

const PLAIN = { Count: DataType.UInt64, Speed: DataType.Int16 };

function set(node, name, value, status) {
  const was = node.readValue().value;
  node.setValueFromSource(
    new Variant({ dataType: PLAIN[name] || was.dataType, arrayType: was.arrayType, value }),
    status ? StatusCodes[status] : StatusCodes.Good,
  );
}

function carryOut(order, { nodes }) {
  switch (order.do) {
    case 'set':
      for (const [name, value] of Object.entries(order.values)) set(nodes[name], name, value, order.status);
      return null;
    case 'get': {
      const { value } = nodes[order.name].readValue().value;
      return ArrayBuffer.isView(value) ? Array.from(value) : value;
    }
    default:
      throw new Error(`no order ${order.do}`);
  }
}

async function main() {
  const certificates = new OPCUACertificateManager({ rootFolder: config.pki, automaticallyAcceptUnknownCertificate: false });
  await certificates.initialize();
  const plain = config.policies.includes('None');
  const secured = config.policies.filter((name) => name !== 'None');
  const server = new OPCUAServer({
    host: '127.0.0.1', hostname: '127.0.0.1', port: config.port, certificateFile: config.cert, privateKeyFile: config.key,
    serverCertificateManager: certificates, nodeset_filename: [nodesets.standard],
    securityPolicies: config.policies.map((name) => SecurityPolicy[name]),
    securityModes: [...(plain ? [MessageSecurityMode.None] : []), ...(secured.length ? [MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt] : [])],
    allowAnonymous: !config.user, disableDiscovery: true,
    userManager: { isValidUser: (name, password) => name === config.user && password === config.password },
    serverInfo: { applicationUri: config.uri, productUri: 'urn:plant.example:server' },
    serverCapabilities: { operationLimits: config.limits || {} },
  });
  await server.initialize();
  const plant = build(server);
  await server.start();
  server.on('create_session', (session) => say('session', { name: session.sessionName }));
  server.on('session_closed', (_session, _deleted, reason) => say('session-closed', { reason: String(reason) }));
  say('ready', { endpoints: server.endpoints.flatMap((end) => end.endpointDescriptions().map((one) => `${one.securityPolicyUri.split('#')[1]} ${MessageSecurityMode[one.securityMode]}`)) });
  readline.createInterface({ input: process.stdin }).on('line', (line) => {
    const order = JSON.parse(line);
    try {
      say('done', { id: order.id, result: carryOut(order, plant) });
    } catch (error) {
      say('done', { id: order.id, error: String(error.stack) });
    }
  }).on('close', async () => { await server.shutdown(0); process.exit(0); });
}

main().catch((error) => { say('fault', { error: String(error.stack) }); process.exit(1); });
