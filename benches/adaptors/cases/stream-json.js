// package: npm:stream-json@1
// behind: collections
// does: reads an array and an object item by item from a stream, a filter, a damaged text
import Pick from 'stream-json/filters/Pick.js';
import StreamArray from 'stream-json/streamers/StreamArray.js';
import StreamObject from 'stream-json/streamers/StreamObject.js';

const items = async (stream, ...pieces) => {
  for (const piece of pieces) stream.write(piece);
  stream.end();
  const found = [];
  for await (const { key, value } of stream) found.push([key, value]);
  return found;
};

export default [
  async () => {
    const text = JSON.stringify([{ name: 'Amina 🌍' }, 2]);
    same(await items(StreamArray.withParser(), ...text.match(/.{1,3}/gsu)), [[0, { name: 'Amina 🌍' }], [1, 2]]);
    same(await items(StreamObject.withParser(), '{"a":1,"b":[2]}'), [['a', 1], ['b', [2]]]);
    const pick = Pick.withParser({ filter: 'items' });
    pick.end('{"meta":{},"items":[1,2]}');
    const picked = [];
    for await (const { value } of pick.pipe(StreamArray.streamArray())) picked.push(value);
    same(picked, [1, 2]);
    same((await failure(() => items(StreamArray.withParser(), '[1, x]'))).message.includes('cannot parse'), true);
  },
];
