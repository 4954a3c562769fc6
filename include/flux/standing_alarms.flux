// The active alarms: for each device and rule the newest change that was not withdrawn, if it
// raised an alarm.
//
// params: quality (bucket), start (how far to look back), stop
// yields: one table, one row per alarm, `_time` the window in which it shows; `rule`, the tag
//         that names the device, and as columns `state`, `alarm` and `since`
//
// Every field of a withdrawn change holds that word, so that the storage engine can skip it and
// return one value per series.
from(bucket: params.quality)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == "alarm" and r._value != "withdrawn")
    |> last()
    |> drop(columns: ["_start", "_stop"])
    |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => r.state == "raised")
    |> group()
