// package: npm:js2xmlparser@1 npm:js2xmlparser@3
// behind 1: commcare
// behind 3: magpi
// does: attributes, lists and text into XML
import js2xmlparser from 'js2xmlparser';

// Version 1 is one function.
const print = js2xmlparser.parse ?? js2xmlparser;

export default [
  () => {
    const xml = print('list', { '@': { id: '1' }, patient: [{ name: 'A & B' }, { name: 'Kofi' }] });
    const flat = xml.replace(/\s*\n\s*/g, '').replaceAll('"', "'");
    const body = "<list id='1'><patient><name>A &amp; B</name></patient><patient><name>Kofi</name></patient></list>";
    same(flat.slice(flat.indexOf('<list')), body);
  },
];
