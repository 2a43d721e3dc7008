# frozen_string_literal: true

# oauth-mail for Ruby: lift this file into your helpdesk. Ruby 3.0 and newer, fiddle comes with it.
#
#   OauthMail::Library.new("/usr/lib/liboauth_mail.so").plugin(store: "sqlite:mail.db", key: {file: "mail.key"}) do |plugin|
#     plugin.open(incoming: {...}) do |account|
#       account.fetch_batch(max_messages: 100) do |batch|
#         batch.each { |message| ... }           # one transaction: your request, and message.key as a unique column
#         account.settle_batch(batch.to_h { |message| [message.key, "imported"] })
#       end
#     end
#   end
#
# Requests and answers are the JSON documents of plugin/core/src/hooks/mod.rs, as hashes. Errors are exceptions, one class
# per kind. Fiddle releases the GVL during a call, so other threads go on. A handle is released at the end of its block, by
# close, or at last by the garbage collector.

require "fiddle"
require "json"

module OauthMail
  # What a hook answers when it cannot go on. `document` has kind, message, remedy, who, provider_code, faults, ...
  class Error < StandardError
    attr_reader :document

    def initialize(document)
      @document = document
      super([document["message"], document["remedy"]].compact.join(" "))
    end

    def faults = document["faults"] || []
  end

  KINDS = %w[SettingsError ConsentRequired AdminRequired Refused Throttled Transient TooLarge ServerMisbehaved Unsupported
             Misuse Closed Internal].map { |name| const_set(name, Class.new(Error)) }

  # The loaded library. It is never unloaded.
  class Library
    V, L, Z, I = Fiddle::TYPE_VOIDP, Fiddle::TYPE_LONG_LONG, Fiddle::TYPE_SIZE_T, Fiddle::TYPE_INT
    # In the order of the table; the first of them lies behind size, version and reserved.
    FUNCTIONS = {
      describe: [V, V], plugin_new: [V, Z, V, V, V], open: [L, V, Z, V, V], authenticate: [L, V, Z, V, V],
      fetch_batch: [L, V, Z, V, V], settle_batch: [L, V, Z, V, V], send_message: [L, V, Z, V, Z, V, V],
      cancel: [L, V], close: [L, V], text: [L, V, V, V], count: [L, V, V], part: [L, Z, I, I, V, V, V], release: [L]
    }.freeze

    def initialize(path)
      entry = Fiddle::Function.new(Fiddle.dlopen(path)["oauth_mail_v1_api"], [V], V)
      table = entry.call(nil)
      pointers = table[16, FUNCTIONS.size * Fiddle::SIZEOF_VOIDP].unpack("J*")
      @api = FUNCTIONS.keys.zip(pointers).to_h do |name, pointer|
        [name, Fiddle::Function.new(pointer, FUNCTIONS[name], -I)]
      end
    end

    def describe = read(call(:describe))

    def plugin(config, &block)
      text = JSON.generate(config)
      Owned.use(Plugin.new(self, call(:plugin_new, text, text.bytesize, nil)), &block)
    end

    # The handle that a function wrote.
    def call(name, *arguments)
      out, error = number, number
      check(@api[name].call(*arguments, out, error), error)
      value(out)
    end

    # A text or an error, once.
    def read(handle)
      JSON.parse(view(:text, handle))
    ensure
      release(handle)
    end

    # The bytes as a string of Ruby's own.
    def view(name, *arguments)
      data, length, error = number, number, number
      check(@api[name].call(*arguments, data, length, error), error)
      value(length).zero? ? +"" : Fiddle::Pointer.new(value(data))[0, value(length)]
    end

    def count(batch)
      count, error = number, number
      check(@api[:count].call(batch, count, error), error)
      value(count)
    end

    def cancel(account)
      error = number
      check(@api[:cancel].call(account, error), error)
    end

    def release(handle) = @api[:release].call(handle)

    private

    def number = Fiddle::Pointer.malloc(8, Fiddle::RUBY_FREE).tap { |pointer| pointer[0, 8] = [0].pack("Q") }

    def value(pointer) = pointer[0, 8].unpack1("Q")

    def check(status, error)
      return if status.zero?

      document = value(error).zero? ? {"message" => "status #{status}"} : read(value(error))
      raise (KINDS[status - 1] || Error).new(document)
    end
  end

  # A handle that is released once.
  class Owned
    attr_reader :library, :handle

    def initialize(library, handle, keep = nil)
      @library, @handle, @keep = library, handle, keep
      # `keep` too: callbacks and accounts need their plugin.
      ObjectSpace.define_finalizer(self, Owned.releaser(library, handle, keep))
    end

    def self.releaser(library, handle, keep)
      proc { library.release(handle).tap { keep } }
    end

    def self.use(owned)
      return owned unless block_given?

      begin
        yield owned
      ensure
        owned.close
      end
    end

    def close
      ObjectSpace.undefine_finalizer(self)
      library.release(handle) unless @closed
      @closed = true
    end
  end

  class Plugin < Owned
    # One mailbox in one direction: {incoming: {...}} or {outgoing: {...}}.
    def open(settings, &block)
      text = JSON.generate(settings)
      Owned.use(Account.new(library, library.call(:open, handle, text, text.bytesize), self), &block)
    end
  end

  class Account < Owned
    def authenticate(action, **fields) = ask(:authenticate, fields.merge(action: action))

    def fetch_batch(**bounds, &block)
      text = JSON.generate(bounds)
      Owned.use(Batch.new(library, library.call(:fetch_batch, handle, text, text.bytesize), self), &block)
    end

    # key => imported, duplicate, refused, retry, failed
    def settle_batch(results) = ask(:settle_batch, {results: results})["done"]

    def send_message(raw: "", **request)
      text = JSON.generate(request)
      library.read(library.call(:send_message, handle, text, text.bytesize, raw, raw.bytesize))
    end

    # From another thread: what runs comes back at once.
    def cancel = library.cancel(handle)

    private

    def ask(name, request)
      text = JSON.generate(request)
      library.read(library.call(name, handle, text, text.bytesize))
    end
  end

  # Messages in mailbox order. Their bytes live as long as the batch.
  class Batch < Owned
    include Enumerable

    def header = JSON.parse(library.view(:text, handle))

    def each
      return enum_for(:each) unless block_given?

      library.count(handle).times { |index| yield Message.new(self, index) }
    end
  end

  class Message
    def initialize(batch, index) = (@batch, @index = batch, index)

    def key = part(0).force_encoding(Encoding::UTF_8)
    def raw = part(1)
    def facts = JSON.parse(part(2))
    def text = part(3).force_encoding(Encoding::UTF_8)
    def html = part(4).force_encoding(Encoding::UTF_8)
    # Decoded; `part_index` as facts["attachments"] lists it.
    def attachment(part_index) = part(5, part_index)

    private

    def part(part, attachment = 0) = @batch.library.view(:part, @batch.handle, @index, part, attachment)
  end
end
