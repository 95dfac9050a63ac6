// Command peer is Benthos, the engine of Redpanda Connect, with a Kafka output made of franz-go: the Kafka parts of Redpanda
// Connect itself are in a module whose licence is not open source as a whole.
package main

import (
	"context"
	"errors"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

type kafka struct {
	broker, topic string
	client        *kgo.Client
}

func (k *kafka) Connect(ctx context.Context) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(k.broker),
		kgo.DefaultProduceTopic(k.topic),
		kgo.RecordDeliveryTimeout(10*time.Second), // What Redpanda Connect has as the default.
	)
	if err != nil {
		return err
	}
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return err
	}
	k.client = client
	return nil
}

func (k *kafka) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	records := make([]*kgo.Record, 0, len(batch))
	for _, message := range batch {
		bytes, err := message.AsBytes()
		if err != nil {
			return err
		}
		records = append(records, &kgo.Record{Value: bytes})
	}
	err := k.client.ProduceSync(ctx, records...).FirstErr()
	if errors.Is(err, kgo.ErrClientClosed) {
		return service.ErrNotConnected
	}
	return err
}

func (k *kafka) Close(context.Context) error {
	if k.client != nil {
		k.client.Close()
	}
	return nil
}

func main() {
	spec := service.NewConfigSpec().
		Field(service.NewStringField("broker")).
		Field(service.NewStringField("topic"))
	open := func(config *service.ParsedConfig, _ *service.Resources) (out service.BatchOutput, policy service.BatchPolicy, inFlight int, err error) {
		output := &kafka{}
		if output.broker, err = config.FieldString("broker"); err != nil {
			return
		}
		output.topic, err = config.FieldString("topic")
		return output, policy, 10, err
	}
	if err := service.RegisterBatchOutput("franz", spec, open); err != nil {
		panic(err)
	}
	service.RunCLI(context.Background())
}
