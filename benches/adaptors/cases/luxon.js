// package: npm:luxon@3
// behind: varo
// does: parses, formats, zones, durations and intervals, in two languages
import { DateTime, Duration, Interval } from 'luxon';

export default [
  () => {
    const date = DateTime.fromISO('2026-12-24T17:05:00Z', { zone: 'Africa/Nairobi' });
    same([date.toISO(), date.offset, date.zoneName], ['2026-12-24T20:05:00.000+03:00', 180, 'Africa/Nairobi']);
    same(date.setLocale('fr').toFormat('d LLLL yyyy'), '24 décembre 2026');
    same(DateTime.fromFormat('03/01/1995', 'dd/MM/yyyy', { zone: 'utc' }).plus({ months: 1 }).toISODate(), '1995-02-03');
    same(Duration.fromObject({ hours: 25 }).shiftTo('days', 'hours').toObject(), { days: 1, hours: 1 });
    same(Interval.after(date, { days: 3 }).splitBy({ days: 1 }).length, 3);
    same(DateTime.fromISO('2026-13-01').invalidReason, 'unit out of range');
  },
];
