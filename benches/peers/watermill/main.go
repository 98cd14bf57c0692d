// Publishes to and consumes from Kafka through Watermill, as its documentation does, and prints
// one JSON object: messages a second, and microseconds of this process's CPU for a message.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
)

var (
	mode     = flag.String("mode", "", "publish, consume or version")
	broker   = flag.String("broker", "", "host:port of Kafka")
	topic    = flag.String("topic", "", "the topic")
	group    = flag.String("group", "", "the consumer group")
	count    = flag.Int("messages", 0, "how many messages")
	size     = flag.Int("bytes", 0, "how large each is")
	batch    = flag.Int("batch", 1, "messages of one call of Publish")
	inFlight = flag.Int("in-flight", 1, "calls of Publish that are out at once")
)

func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

type meter struct {
	started time.Time
	cpu     time.Duration
}

func start() meter { return meter{time.Now(), cpu()} }

func (m meter) print(messages int) {
	figures := map[string]float64{
		"rate":   float64(messages) / time.Since(m.started).Seconds(),
		"cpu_us": float64((cpu() - m.cpu).Microseconds()) / float64(messages),
	}
	if err := json.NewEncoder(os.Stdout).Encode(figures); err != nil {
		log.Fatal(err)
	}
}

func publish() {
	config := kafka.DefaultSaramaSyncPublisherConfig()
	config.Producer.RequiredAcks = sarama.WaitForAll
	publisher, err := kafka.NewPublisher(kafka.PublisherConfig{
		Brokers:               []string{*broker},
		Marshaler:             kafka.DefaultMarshaler{},
		OverwriteSaramaConfig: config,
	}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	payload := make([]byte, *size)
	for i := range payload {
		payload[i] = byte(i*7 + i/13)
	}
	m := start()
	var calls atomic.Int64
	calls.Store(int64(*count / *batch))
	var publishers sync.WaitGroup
	for range *inFlight {
		publishers.Go(func() {
			for calls.Add(-1) >= 0 {
				messages := make([]*message.Message, *batch)
				for i := range messages {
					messages[i] = message.NewMessage(watermill.NewShortUUID(), payload)
				}
				if err := publisher.Publish(*topic, messages...); err != nil {
					log.Fatal(err)
				}
			}
		})
	}
	publishers.Wait()
	m.print(*count / *batch * *batch)
	if err := publisher.Close(); err != nil {
		log.Fatal(err)
	}
}

func consume() {
	config := kafka.DefaultSaramaSubscriberConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Interval = 100 * time.Millisecond
	subscriber, err := kafka.NewSubscriber(kafka.SubscriberConfig{
		Brokers:               []string{*broker},
		Unmarshaler:           kafka.DefaultMarshaler{},
		OverwriteSaramaConfig: config,
		ConsumerGroup:         *group,
	}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := subscriber.Subscribe(ctx, *topic)
	if err != nil {
		log.Fatal(err)
	}
	first := <-messages
	first.Ack()
	m := start()
	for range *count - 1 {
		(<-messages).Ack()
	}
	m.print(*count - 1)
	cancel()
}

func main() {
	flag.Parse()
	switch *mode {
	case "publish":
		publish()
	case "consume":
		consume()
	case "version":
		info, _ := debug.ReadBuildInfo()
		for _, module := range info.Deps {
			if module.Path == "github.com/ThreeDotsLabs/watermill-kafka/v3" {
				fmt.Println(module.Version)
			}
		}
	default:
		log.Fatalf("-mode is %q, not publish, consume or version", *mode)
	}
}
