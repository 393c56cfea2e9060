// package: npm:qs@6
// behind: dhis2, khanacademy
// does: nested objects and lists there and back, in every notation
import qs from 'qs';

export default [
  () => {
    const query = { filter: { age: { gt: '3' } }, ids: ['1', '2'], q: 'a b&c' };
    const text = 'filter%5Bage%5D%5Bgt%5D=3&ids%5B0%5D=1&ids%5B1%5D=2&q=a%20b%26c';
    same([qs.stringify(query), qs.parse(text)], [text, query]);
    same(qs.stringify({ ids: [1, 2] }, { arrayFormat: 'comma', encode: false }), 'ids=1,2');
    same(qs.parse('?a.b=1', { allowDots: true, ignoreQueryPrefix: true }), { a: { b: '1' } });
  },
];
