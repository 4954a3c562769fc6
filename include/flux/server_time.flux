// The clock of the InfluxDB server.
//
// params: none
// yields: one row, `_time` the current time
import "array"
import "system"

array.from(rows: [{_time: system.time()}])
