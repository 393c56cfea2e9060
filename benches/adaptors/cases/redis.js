// package: npm:redis@4
// behind: redis
// does: set and get, hashes, expiry, a scan, a transaction, publish and subscribe, a wrong password
import { createClient } from 'redis';

export default [
  async ({ configuration: { redis, closed } }) => {
    const at = ({ port, password }) => createClient({ url: `redis://:${password}@127.0.0.1:${port}`, socket: { reconnectStrategy: false } }).on('error', () => {});
    const client = at(redis);
    await client.connect();
    await client.flushAll();
    await client.set('visit:1', 'Accra 🌍', { EX: 100 });
    same([await client.get('visit:1'), await client.ttl('visit:1') > 90, await client.get('absent')], ['Accra 🌍', true, null]);
    await client.hSet('patient', { name: 'Amina', age: '31' });
    same(await client.hGetAll('patient'), { name: 'Amina', age: '31' });
    same(await client.multi().incr('n').incrBy('n', 4).exec(), [1, 5]);
    const keys = [];
    for await (const key of client.scanIterator({ MATCH: 'visit:*' })) keys.push(key);
    same(keys, ['visit:1']);
    const other = client.duplicate().on('error', () => {});
    await other.connect();
    const heard = new Promise(resolve => other.subscribe('news', resolve).then(() => client.publish('news', 'hello')));
    same(await heard, 'hello');
    same((await failure(() => client.lPush('n', 'x'))).message.startsWith('WRONGTYPE'), true);
    await other.disconnect();
    await client.quit();
    same((await failure(() => at({ ...redis, password: 'wrong' }).connect())).message.startsWith('WRONGPASS'), true);
    same((await failure(() => at({ ...redis, port: closed }).connect())).code, 'ECONNREFUSED');
  },
];
