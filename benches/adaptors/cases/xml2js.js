// package: npm:xml2js@0.5.0
// behind: bigquery, magpi
// does: attributes, lists, namespaces and entities there and back, an error's line
import xml2js from 'xml2js';

export default [
  async () => {
    const xml = '<?xml version="1.0"?><list xmlns:h="urn:h"><h:patient id="1">A &amp; B</h:patient><h:patient id="2"/></list>';
    const parsed = await xml2js.parseStringPromise(xml);
    same(parsed.list['h:patient'], [{ _: 'A & B', $: { id: '1' } }, { $: { id: '2' } }]);
    const bare = new xml2js.Parser({ explicitArray: false, mergeAttrs: true, tagNameProcessors: [xml2js.processors.stripPrefix] });
    same((await bare.parseStringPromise(xml)).list.patient[0], { _: 'A & B', id: '1' });
    const built = new xml2js.Builder({ headless: true }).buildObject({ list: { patient: [{ $: { id: 1 }, _: '<b>' }] } });
    same(built, '<list>\n  <patient id="1">&lt;b&gt;</patient>\n</list>');
    same((await failure(() => xml2js.parseStringPromise('<a>\n<b></a>'))).message.includes('Line: 1'), true);
  },
];
