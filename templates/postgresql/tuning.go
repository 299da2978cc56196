package postgresql

import "fmt"

// Tuning is what the size of a host decides. Sizes are in PostgreSQL's units.
//
// The formulas are those of pgtune (https://pgtune.leopard.in.ua, state of July
// 2026) for a web application: many short queries from a few hundred
// connections. Where a figure is ours, its reason stands beside it.
type Tuning struct {
	MaxConnections           int
	SharedBuffers            string
	EffectiveCacheSize       string
	MaintenanceWorkMem       string
	AutovacuumWorkMem        string
	WorkMem                  string
	WALBuffers               string
	MinWALSize, MaxWALSize   string
	HugePages                string
	RandomPageCost           string
	EffectiveIOConcurrency   int
	MaintenanceIOConcurrency int
	MaxWorkerProcesses       int
	MaxParallelWorkers       int
	MaxParallelPerGather     int
	MaxParallelMaintenance   int
	AutovacuumWorkers        int
}

// Tune sizes a server for a host of its own with so much memory, in MiB, so
// many cores and such a disk; an empty kind of disk means SSD.
func Tune(memoryMB, cores int, disk Disk) Tuning {
	mb := func(n int) string { return fmt.Sprintf("%dMB", n) }
	t := Tuning{
		MaxConnections: 200,
		MinWALSize:     "1GB",
		MaxWALSize:     "4GB",
		HugePages:      "off",
	}
	// A quarter of the memory is PostgreSQL's own, three quarters in all can be
	// expected to hold its files.
	shared := max(memoryMB/4, 64)
	t.SharedBuffers = mb(shared)
	t.EffectiveCacheSize = mb(memoryMB * 3 / 4)
	if shared >= 2048 {
		t.HugePages = "try"
	}
	// At most 8 GB; vacuum workers do not profit from more than 2 GB, and there
	// are several of them.
	maintenance := min(max(memoryMB/16, 16), 8192)
	t.MaintenanceWorkMem = mb(maintenance)
	t.AutovacuumWorkMem = mb(min(maintenance, 2048))
	// 3 % of the shared buffers, at most one WAL segment.
	t.WALBuffers = fmt.Sprintf("%dkB", min(shared*1024*3/100, 16*1024))

	// Parallel queries pay from 4 cores on.
	t.MaxWorkerProcesses, t.MaxParallelWorkers = 8, 2
	if cores >= 4 {
		t.MaxWorkerProcesses = max(cores, 8)
		t.MaxParallelWorkers = cores
		t.MaxParallelPerGather = min(4, (cores+1)/2)
		t.MaxParallelMaintenance = min(4, (cores+1)/2)
	}
	t.AutovacuumWorkers = min(max(3, cores/2), 6)
	// What is left, for each connection and worker three sorts or hashes.
	t.WorkMem = fmt.Sprintf("%dkB", max((memoryMB-shared)*1024/((t.MaxConnections+t.MaxWorkerProcesses)*3), 4096))

	switch disk {
	case HDD:
		t.RandomPageCost, t.EffectiveIOConcurrency, t.MaintenanceIOConcurrency = "4", 2, 10
	case NVMe:
		t.RandomPageCost, t.EffectiveIOConcurrency, t.MaintenanceIOConcurrency = "1.1", 1000, 1000
	default:
		t.RandomPageCost, t.EffectiveIOConcurrency, t.MaintenanceIOConcurrency = "1.1", 200, 200
	}
	return t
}
