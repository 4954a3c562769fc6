// mochi-mqtt as a broker of the tests: sessions and messages in a Badger store.
package main

import (
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/hooks/storage/badger"
	"github.com/mochi-mqtt/server/v2/listeners"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:1883", "address of the MQTT listener")
	store := flag.String("store", "mochi.store", "folder of the sessions")
	expiry := flag.Uint("session-expiry", 0, "longest session expiry in seconds; 0 for any")
	qos := flag.Uint("qos", 2, "maximum QoS")
	flag.Parse()
	capabilities := mqtt.NewDefaultServerCapabilities()
	if *expiry > 0 {
		capabilities.MaximumSessionExpiryInterval = uint32(*expiry)
	}
	capabilities.MaximumQos = byte(*qos)
	server := mqtt.New(&mqtt.Options{Capabilities: capabilities})
	must(server.AddHook(new(auth.AllowHook), nil))
	must(server.AddHook(new(badger.Hook), &badger.Options{Path: *store}))
	must(server.AddListener(listeners.NewTCP(listeners.Config{ID: "mqtt", Address: *listen})))
	must(server.Serve())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	must(server.Close())
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
