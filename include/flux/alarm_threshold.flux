// The level of every row: `level` where the field is below or above its limit.
//
// params: downsampled (bucket), measurement, start, stop, writes (the field to write),
//         level, normal (texts), tagged (the columns that are tags), and from the rule:
//         field, and `below`, `above` or both (whichever the rule leaves out is a limit that
//         no value reaches)
// yields: one row, `_value` the number of rows that got a level
//
// All devices in one table: a table each would cost more than the rows in it.
from(bucket: params.downsampled)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == params.field)
    |> group()
    |> map(fn: (r) => ({r with
        _value: if r._value < params.below or r._value > params.above then
            params.level
        else
            params.normal,
        _field: params.writes,
    }))
    |> to(bucket: params.downsampled, tagColumns: params.tagged)
    |> count()
