// package: npm:stream-json@1
// behind: collections
// does: reads an array and an object item by item from a stream, a filter, a damaged text
import Pick from 'stream-json/filters/Pick.js';
import StreamArray from 'stream-json/streamers/StreamArray.js';
import StreamObject from 'stream-json/streamers/StreamObject.js';
import { Readable } from 'node:stream';

const items = async stream => {
  const found = [];
  for await (const { key, value } of stream) found.push([key, value]);
  return found;
};

export default [
  async () => {
    const text = JSON.stringify([{ name: 'Amina 🌍' }, 2]);
    same(await items(Readable.from(text.match(/.{1,3}/gsu)).pipe(StreamArray.withParser())), [[0, { name: 'Amina 🌍' }], [1, 2]]);
    same(await items(Readable.from('{"a":1,"b":[2]}').pipe(StreamObject.withParser())), [['a', 1], ['b', [2]]]);
    const picked = Readable.from('{"meta":{},"items":[1,2]}').pipe(Pick.withParser({ filter: 'items' })).pipe(StreamArray.streamArray());
    same(await items(picked), [[0, 1], [1, 2]]);
    same((await failure(() => items(Readable.from('[1, x]').pipe(StreamArray.withParser())))).message.includes('cannot parse'), true);
  },
];
