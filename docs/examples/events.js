// Prints every value of a bench as it changes, with nothing but an AMQP 1.0 client (npm rhea).
//
// node events.js 127.0.0.1 5672 demo
'use strict';

const rhea = require('rhea');

const [host, port, bench] = process.argv.slice(2);

rhea.on('connection_open', ({ connection }) => {
  const source = { address: `hil.${bench}.events.*`, capabilities: ['topic'] };
  connection.open_receiver({ source });
});

rhea.on('message', ({ message }) => {
  const attributes = message.application_properties;
  if (attributes['cloudEvents:type'] !== 'io.hilgate.samples.v1') return;
  const device = attributes['cloudEvents:source'].split('/').pop();
  for (const { time, values, bad = {} } of JSON.parse(message.body.content).samples) {
    for (const [point, value] of Object.entries(values)) console.log(time, device, point, value);
    for (const [point, reason] of Object.entries(bad)) console.log(time, device, point, 'bad:', reason);
  }
});

rhea.connect({ host, port: Number(port) });
