// The level of every row: `level` where the field is below or above its limit.
//
// params: downsampled (bucket), measurement, start, stop, writes (the field to write),
//         level, normal (texts), tagged (the columns that are tags), and from the rule:
//         field, and `below`, `above` or both (a limit that the rule leaves out is set to a
//         number that no value reaches)
// yields: `alarms` and `normals`, each one row, `_value` the number of rows that got the level
//
// The storage engine evaluates both filters; `map` over each row takes twice as long. All
// devices are in one table: a table per device costs more than the rows in it.
rows = () => from(bucket: params.downsampled)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == params.field)

write = (tables=<-, level) => tables
    |> group()
    |> drop(columns: ["_start", "_stop", "_value"])
    |> set(key: "_field", value: params.writes)
    |> set(key: "_value", value: level)
    |> to(bucket: params.downsampled, tagColumns: params.tagged)
    |> count()

rows()
    |> filter(fn: (r) => r._value < params.below or r._value > params.above)
    |> write(level: params.level)
    |> yield(name: "alarms")

rows()
    |> filter(fn: (r) => r._value >= params.below and r._value <= params.above)
    |> write(level: params.normal)
    |> yield(name: "normals")
