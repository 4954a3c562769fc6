// The alarms that stand: of each device and rule the newest change that was not withdrawn,
// if it raised an alarm.
//
// params: quality (bucket), start (how far to look back), stop
// yields: one table, one row an alarm, `_time` the window in which it shows; `rule`, the tag
//         that names the device, and as columns `state`, `alarm` and `since`
//
// Every field of a change that was withdrawn says so, so that the storage engine can pass
// over it and hand out one value a series.
from(bucket: params.quality)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == "alarm" and r._value != "withdrawn")
    |> last()
    |> drop(columns: ["_start", "_stop"])
    |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => r.state == "raised")
    |> group()
