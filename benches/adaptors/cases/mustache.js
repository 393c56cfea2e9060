// package: npm:mustache@2
// behind: mogli
// does: variables, sections, partials, escapes
import mustache from 'mustache';

export default [
  () => {
    const template = '{{#patients}}{{>line}}{{/patients}}{{^patients}}none{{/patients}}';
    const partials = { line: '{{name}} {{{name}}};' };
    same(mustache.render(template, { patients: [{ name: 'A&B' }] }, partials), 'A&amp;B A&B;');
    same(mustache.render(template, {}, partials), 'none');
  },
];
