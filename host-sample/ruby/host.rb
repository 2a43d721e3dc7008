# frozen_string_literal: true

# A host in Ruby: consent, fetch, settle, send.
#
#   ruby host.rb WALK.json      {"library","plugin","incoming","outgoing","to"}
#
# Says one line per step and reads the redirect of the consent from standard input.

require_relative "oauth_mail"

$stdout.sync = true
walk = JSON.parse(File.read(ARGV.fetch(0)))

OauthMail::Library.new(walk["library"]).plugin(walk["plugin"]) do |plugin|
  begin
    plugin.open({incoming: {}})
  rescue OauthMail::SettingsError => error
    puts "refused #{error.faults.first["pointer"]}"
  end
  plugin.open({incoming: walk["incoming"]}) do |inbox|
    begin
      inbox.fetch_batch
    rescue OauthMail::ConsentRequired
      puts "consent #{inbox.authenticate("start")["authorize_url"]}"
      puts inbox.authenticate("complete", redirect: $stdin.gets.strip)["state"]
    end
    inbox.fetch_batch(max_messages: 100) do |batch|
      batch.each do |message|
        facts = message.facts
        sizes = facts["attachments"].map { |file| message.attachment(file["part_index"]).bytesize }
        puts ["message", message.raw.bytesize, facts["subject"], *sizes].join(" ")
      end
      done = inbox.settle_batch(batch.to_h { |message| [message.key, "imported"] })
      puts "settled #{done.size}"
    end
  end
  plugin.open({outgoing: walk["outgoing"]}) do |outbox|
    puts outbox.send_message(to: [walk["to"]], subject: "From Ruby", text: "It works.\n")["outcome"]
  end
end
puts "done"
